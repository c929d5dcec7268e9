"""torchrun that ends as the step it ran did: `python -m pipelines.trainjob.torchrun -m MODULE ...`

torchrun itself ends with 1 whatever its processes ended with: a gate's refusal (3), bad input (2) and an
interrupt (75) could not be told from a bug. Arguments and PET_* variables are torchrun's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from components.runtime.errors import GateRefused, InputError, Interrupted

#: Exit codes with a meaning, the one that says most first: the other processes' ends follow from it.
TELLING = (GateRefused.exit_code, InputError.exit_code, Interrupted.exit_code)


def main(arguments: Sequence[str]) -> int:
    """Run torchrun with `arguments`; the exit code that the processes' ends stand for."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(list(arguments)))
    except ChildFailedError as error:
        code = telling_code(failure.exitcode for failure in error.failures.values())
        if code not in TELLING:  # otherwise the step has said why in a line of its own
            print(error, file=sys.stderr, flush=True)
        return code
    except SignalException as error:
        print(f"torchrun: {error}", file=sys.stderr, flush=True)
        return Interrupted.exit_code
    return 0


def telling_code(codes: Iterable[int]) -> int:
    """The exit code that says most about why several processes ended; 1 if none has a meaning of ours."""
    ended = set(codes)
    return next((code for code in TELLING if code in ended), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

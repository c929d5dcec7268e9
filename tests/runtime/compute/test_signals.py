from __future__ import annotations

import os
import signal
import threading

import pytest

from components.runtime.compute.signals import StopSignal
from components.runtime.errors import Interrupted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_flag_until_the_loop_asks(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        stop.raise_if_requested()
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(Interrupted):
            stop.raise_if_requested()
    assert signal.getsignal(number) is before


def test_a_second_interrupt_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignal():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_an_outer_loop_hears_of_it_too() -> None:
    with StopSignal() as outer:
        with StopSignal() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            assert inner.requested
        assert outer.requested


def test_outside_the_main_thread_it_does_nothing() -> None:
    seen: list[bool] = []

    def work() -> None:
        with StopSignal() as stop:
            seen.append(stop.should_stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]

#!/bin/sh
# Runs in stages that are thrown away: no installer reaches an image.
#   sh install.sh prepare   makes the environment that installs, and keeps its settings, for every LOCK after it
#   sh install.sh LOCK      installs a lock file under /opt/packages, laid out like the virtual environment /opt/venv of
#                           the base image, for the last stage to copy over it
# `prepare` reads PIP_INDEX_URL, PIP_CERT and TORCH_INDEX (an index, or a folder of wheels). Where there are files in
# /wheelhouse, that is the only source.
set -eu
here=$(dirname "$0")

if [ -n "$(ls -A /wheelhouse 2>/dev/null)" ]; then
    export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheelhouse
fi
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_DEPS=1 PIP_REQUIRE_HASHES=1

if [ "$1" = prepare ]; then
    case ${TORCH_INDEX:-} in
        /*) torch="find-links = $TORCH_INDEX" ;;
        ?*) torch="extra-index-url = $TORCH_INDEX" ;;
        *) torch= ;;
    esac
    printf '%s\n' '[global]' "${PIP_INDEX_URL:+index-url = $PIP_INDEX_URL}" "${PIP_CERT:+cert = $PIP_CERT}" "$torch" \
        > /etc/pip.conf
    # An empty setting is not the same to pip as none.
    unset PIP_INDEX_URL PIP_CERT
    # At the very path of the last stage's environment, because scripts name their interpreter.
    python3 -m venv --clear /opt/venv
    /opt/venv/bin/python -m pip install --quiet -r "$here/build.txt"
    exit
fi

/opt/venv/bin/python -m pip install --quiet --no-build-isolation --no-compile --ignore-installed --prefix /opt/packages -r "$1"

cd /opt/packages/lib/python3*/site-packages
# Tests, headers and static libraries: nothing compiles or tests inside an image.
find . -type d \( -name tests -o -path ./torch/test -o -path './torch/include' -o -path './pyarrow/include' \
    -o -path './nvidia/*/include' \) -prune -exec rm -r {} +
find . -name '*.a' -type f -delete
# Of the AWS services only the store, and what hands out its credentials.
[ ! -d botocore/data ] || find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 \
    ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} +
# torch_shm_manager is what lets processes share tensors; the rest of this folder are torch's own test programs.
[ ! -d torch/bin ] || find torch/bin -type f ! -name torch_shm_manager -delete

# Bytecode by hash of the source, not by its time: the same on every build, and valid on a read-only root. Some
# packages ship templates and Python 2 that do not compile; nothing imports them.
/opt/venv/bin/python -m compileall -qq -s /opt/packages -p /opt/venv --invalidation-mode unchecked-hash . || true

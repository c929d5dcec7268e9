#!/bin/sh
# The container tests, on a Debian machine as root, without a registry: installs the engine where it is missing,
# makes a base image with debootstrap, builds the images, starts Podman's Docker-compatible API, runs the tests.
#   tests/containers/run.sh [PYTEST ARGUMENT ...]        e.g. -k "not default_pipeline"
# What it makes lies in build/containers and in Podman's own store, where the next run finds it again.
set -eu
cd "$(dirname "$0")/../.."
work=$PWD/build/containers
base=localhost/onlinevpo-debian:bookworm
python=${PYTHON:-python}
mkdir -p "$work"

[ "$(id -u)" = 0 ] || { echo "run.sh: must be run as root: debootstrap needs it" >&2; exit 2; }

missing=
for tool in podman buildah runc debootstrap; do
    command -v "$tool" > /dev/null || missing="$missing $tool"
done
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $missing
fi

# Settings that work inside a container or a small virtual machine too; the machine's own stay as they are.
cat > "$work/containers.conf" << 'END'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
END
export CONTAINERS_CONF="$work/containers.conf"

if ! podman image exists "$base"; then
    root=$(mktemp -d /var/tmp/onlinevpo-base.XXXXXX)
    trap 'rm -rf "$root"' EXIT
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$root" > "$work/debootstrap.log" \
        || { tail -5 "$work/debootstrap.log" >&2; exit 1; }
    tar -C "$root" --exclude=./var/cache/apt --exclude=./var/lib/apt/lists --exclude=./dev -c . \
        | podman import --quiet - "$base"
    rm -rf "$root"
    trap - EXIT
fi

# The builds see this machine's package settings: its index, its certificates, the folder with torch's CPU build.
setting() {
    "$python" -m pip config list | sed -n "s/^.*\.$1='\(.*\)'\$/\1/p" | tail -n 1
}
volumes=
certificates=${PIP_CERT:-$(setting cert)}
if [ -n "$certificates" ]; then
    export PIP_CERT="$certificates"
    folder=$(dirname "$certificates")
    volumes="$volumes -v $folder:$folder:ro"
fi
wheels=${TORCH_INDEX:-$(setting find-links)}
if [ -d "$wheels" ]; then
    # At a folder that every image has: the engine would leave an empty one behind in the layer.
    volumes="$volumes -v $wheels:/mnt:ro"
    wheels=/mnt
fi
index=${PIP_INDEX_URL:-$(setting index-url)}
[ -z "$index" ] || export PIP_INDEX_URL="$index"
# shellcheck disable=SC2086 # a list of words
TORCH_INDEX=$wheels "$python" -m images build --engine podman --base-image "$base" --output "$work/images.yaml" \
    -- --isolation=chroot $volumes > "$work/build.log" 2>&1 || { tail -30 "$work/build.log" >&2; exit 1; }
tail -n 8 "$work/build.log"

socket=$work/podman.sock
rm -f "$socket"
podman system service --time=0 "unix://$socket" 2> "$work/service.log" &
service=$!
trap 'kill $service 2> /dev/null || true' EXIT
export DOCKER_HOST="unix://$socket"
tries=0
until [ -S "$socket" ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat "$work/service.log" >&2; exit 1; }
    sleep 0.1
done

export ONLINEVPO_TEST_IMAGES="$work/images.yaml" ONLINEVPO_TEST_BASE="$base"
"$python" -m pytest -m containers -p no:cacheprovider tests/containers "$@"

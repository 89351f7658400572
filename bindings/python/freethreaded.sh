#!/usr/bin/env bash
# Builds the Python wheel for a free-threaded interpreter, and runs its tests there: CPython's own,
# and pytest. FREETHREADED=/path/to/python3.13t names the interpreter; else one is built from
# Debian's source package of python3.13, once, and kept in target/python-freethreaded/cpython. That
# takes a Debian machine with a C compiler and the headers of OpenSSL, zlib and libffi; nothing of
# the system's is changed. It is built without profile-guided optimization.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/target/python-freethreaded

. bindings/python/debian.sh

# An apt of its own: its lists, cache and sources are in `scratch`, and it runs no hooks.
scratch_apt() {
    apt-get -c "$scratch/apt.conf" "$@"
}

build_python() {
    local scratch=$here/build url
    url=$(debian_archive) || {
        echo "name an interpreter: FREETHREADED=/path/to/python3.13t" >&2
        exit 1
    }
    rm -rf "$scratch"
    mkdir -p "$scratch"/{lists/partial,cache/archives/partial,source}
    : >"$scratch/status"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $url trixie main" >"$scratch/sources.list"
    cat >"$scratch/apt.conf" <<-END
	#clear APT::Update::Post-Invoke;
	#clear APT::Update::Post-Invoke-Success;
	#clear DPkg::Post-Invoke;
	Dir::Etc::SourceList "$scratch/sources.list";
	Dir::Etc::SourceParts "-";
	Dir::State "$scratch";
	Dir::State::Lists "$scratch/lists";
	Dir::State::Status "$scratch/status";
	Dir::Cache "$scratch/cache";
	APT::Sandbox::User "$(id -un)";
	END
    scratch_apt update -q
    (cd "$scratch/source" && scratch_apt source -q --download-only python3.13)
    # As its authors released it: Debian's changes are for a Python among Debian's packages.
    tar -xf "$scratch"/source/python3.13_*.orig.tar.xz -C "$scratch/source" --strip-components 1
    (
        cd "$scratch/source"
        ./configure --quiet --disable-gil --prefix "$here/cpython"
        make --quiet -j"${JOBS:-2}"
        make --quiet altinstall
    ) >"$scratch/log" 2>&1 || {
        tail -40 "$scratch/log" >&2
        exit 1
    }
    rm -rf "$scratch"
}

python=${FREETHREADED:-$here/cpython/bin/python3.13t}
if [ -z "${FREETHREADED:-}" ] && [ ! -x "$python" ]; then
    build_python
fi
if [ "$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("Py_GIL_DISABLED"))')" != 1 ]; then
    echo "$python is not free-threaded" >&2
    exit 1
fi
export ENVIRONMENTS=target/python-freethreaded
PYTHONS=$python bindings/python/build.sh
bindings/python/test.sh

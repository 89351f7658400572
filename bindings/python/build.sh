#!/usr/bin/env bash
# Builds the wheel for each available interpreter, and installs it with the requirements of its
# tests into an environment of its own, target/python/VERSION; the type checkers into the last one.
# PYTHONS="3.13 /opt/python/bin/python" chooses others, and ENVIRONMENTS another folder than
# target/python. With QUICK=1 the wheels of all but the last interpreter are optimized less, for
# tests only.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=${ENVIRONMENTS:-target/python}

interpreters() {
    if [ -n "${PYTHONS:-}" ]; then
        for python in $PYTHONS; do
            case $python in
            */*) echo "$python" ;;
            *) ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$python"*/bin/python 2>/dev/null || command -v "python$python" ;;
            esac
        done
    else
        ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-9]*/bin/python 2>/dev/null || command -v python3
    fi
}

# Arguments: ENVIRONMENT PACKAGES.. (Newer releases of hypothesis may have no wheel for a
# free-threaded interpreter, and cannot be built there.)
install() {
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary hypothesis "${@:2}"
}

# Arguments: ENVIRONMENT MODULES..
has() {
    "$1/bin/python" -c "import $(IFS=,; echo "${*:2}")" 2>/dev/null
}

# Arguments: INTERPRETER
name_of() {
    "$1" -c 'import sys; print("%d.%d%s" % (*sys.version_info[:2], getattr(sys, "abiflags", "")))'
}

# Arguments: INTERPRETER NAME
build() {
    local python=$1 name=$2 env=$here/$2 packages greenlets package module wheels
    [ -x "$env/bin/python" ] || "$python" -m venv "$env"
    has "$env" pytest hypothesis flask gunicorn || install "$env" "maturin>=1.9,<2" pytest hypothesis flask gunicorn
    # One by one: some are compiled, and not for every interpreter. Tests without them are skipped.
    packages=(sqlalchemy==2.1.9 freezegun==1.5.5 time-machine==3.6.0 pydantic==2.14.4 rich==15.0.0)
    greenlets=(greenlet==3.5.6 gevent==26.9.0 eventlet==0.41.3)
    case $name in
    # Their import turns the GIL of a free-threaded interpreter on.
    *t*) "$env/bin/python" -m pip uninstall -qq --disable-pip-version-check --yes "${greenlets[@]%%==*}" ;;
    *) packages=("${greenlets[@]}" "${packages[@]}") ;;
    esac
    for package in "${packages[@]}"; do
        module=${package%%==*}
        has "$env" "${module/-/_}" || install "$env" --only-binary :all: "$package" || echo "$name: no $package" >&2
    done
    has "$env" redis || install "$env" redis==8.1.0
    if [ -n "${QUICK:-}" ] && [ "$python" != "$newest" ]; then
        export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=0
    fi
    wheels=$here/wheels/$name
    rm -rf "$wheels"
    # A target directory each: the build for one interpreter is of no use to the next.
    CARGO_TARGET_DIR=$here/cargo-$name "$env/bin/maturin" build --quiet --release --manifest-path bindings/python/Cargo.toml \
        --interpreter "$env/bin/python" --out "$wheels"
    install "$env" --no-deps --force-reinstall "$wheels"/*.whl
    echo "$name: $("$env/bin/python" -c 'import hotset; print(hotset.__file__)')"
}

# At the same time: most of a build is one crate, which one processor compiles.
building=()
newest=$(interpreters | tail -1)
for python in $(interpreters); do
    name=$(name_of "$python")
    (
        set -e
        build "$python" "$name"
    ) &
    building+=("$!")
done
failed=0
for build in "${building[@]}"; do
    wait "$build" || failed=1
done
[ "$failed" = 0 ] || exit 1
env=$here/$name
# Another folder is for other tests than those of the types.
[ -n "${ENVIRONMENTS:-}" ] || has "$env" mypy pyright || install "$env" mypy "pyright[nodejs]"

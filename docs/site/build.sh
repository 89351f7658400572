#!/usr/bin/env bash
# Builds the site of the documentation into target/docs/html: pages by Sphinx, the Rust API by
# rustdoc, both without a warning, and checks it. PYTHON chooses the interpreter of the environment
# with Sphinx, target/docs/venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=docs/site
out=target/docs
env=$out/venv

[ -x "$env/bin/python" ] || "${PYTHON:-python3}" -m venv "$env"
# Installed anew when the versions change.
if ! cmp -s "$here/constraints.txt" "$env/constraints.txt"; then
    "$env/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$here/constraints.txt" --requirement "$here/requirements.txt"
    cp "$here/constraints.txt" "$env/constraints.txt"
fi
(cd "$here" && "$OLDPWD/$env/bin/python" -B -m unittest --quiet)
"$env/bin/python" -B "$here/stage.py" "$out/source"
# The output is made anew, so that no page of an earlier build stays; what Sphinx has read is kept.
rm -rf "$out/html"
"$env/bin/sphinx-build" --quiet --fail-on-warning --keep-going --jobs 2 --conf-dir "$here" --doctree-dir "$out/doctrees" "$out/source" "$out/html"
cp -r "${CARGO_TARGET_DIR:-target}/doc" "$out/html/rust"
"$env/bin/python" -B "$here/check.py" "$out/html"
echo "$PWD/$out/html/index.html"

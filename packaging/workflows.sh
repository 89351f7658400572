#!/usr/bin/env bash
# Lints the workflows of GitHub: actionlint (their syntax, expressions and shell) and zizmor (what
# an attacker can make of them), without the network. Installs both into target/workflows, at the
# versions of workflows.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
env=target/workflows
if ! cmp -s packaging/workflows.txt "$env/workflows.txt"; then
    rm -rf "$env"
    python3 -m venv "$env"
    "$env/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps \
        --requirement packaging/workflows.txt
    cp packaging/workflows.txt "$env/workflows.txt"
fi
"$env/bin/actionlint" .github/workflows/*.yml
"$env/bin/zizmor" --offline --quiet .github
echo "$(ls .github/workflows/*.yml | wc -l) workflows: actionlint and zizmor find nothing"

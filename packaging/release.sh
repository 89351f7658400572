#!/usr/bin/env bash
# Releases a version as far as that needs no network: `release.sh X.Y.Z`. In a clone it sets the
# version everywhere, dates the changelog, commits, builds the artifacts into DIST
# (target/dist/X.Y.Z), and tags; then the branch here moves to that commit, and the commands that
# publish are printed. Where a step fails, branch, tree and tags are as they were. ARTIFACTS and
# DAY=YYYY-MM-DD are for tests.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
version=${1:-}
export ARTIFACTS=${ARTIFACTS-source crate sdist wheels c deb sbom}
day=${DAY:-$(date -u +%F)}
fail() { echo "release: $*" >&2; exit 1; }
newest() { printf '%s\n' "$@" | sort -V | tail -1; }

[ -n "$version" ] || fail "which version? make release VERSION=X.Y.Z"
[[ $version =~ ^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$ ]] || fail "not a version of the form X.Y.Z: $version"
branch=$(git symbolic-ref --quiet --short HEAD) || fail "HEAD is on no branch: check one out"
changed=$(git status --porcelain | wc -l)
[ "$changed" = 0 ] || fail "the tree is not clean: $changed files differ from the last commit"
! git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null || fail "the tag v$version exists"
current=$(packaging/version.py get)
[ "$(newest "$current" "$version")" = "$version" ] || fail "$version is older than $current, the version of the tree"
last=$(git tag --list 'v[0-9]*' | sed 's/^v//' | sort -V | tail -1)
[ -z "$last" ] || [ "$(newest "$last" "$version")" = "$version" ] || fail "$version is older than $last, the last release"
message=$(packaging/version.py check 2>&1 >/dev/null | head -1 || true)
[ -z "$message" ] || fail "the versions in the tree differ (make check-versions): $message"
message=$(packaging/changelog.py unreleased 2>&1 >/dev/null) || fail "$message"
[ -z "${DIST:-}" ] || [ -z "$(ls -A "$DIST" 2>/dev/null)" ] || fail "DIST is not empty: $DIST"
case " $ARTIFACTS " in
*" sbom "*) command -v cargo-cyclonedx >/dev/null || fail "cargo-cyclonedx is missing: make tools-sbom" ;;
esac

before=$(git rev-parse HEAD)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-local --branch "$branch" "file://$root" "$work/hotset"
for key in user.name user.email; do
    value=$(git config "$key" || true)
    [ -z "$value" ] || git -C "$work/hotset" config "$key" "$value"
done
# What was compiled and installed for the packages here is used there.
mkdir -p target
ln -s "$root/target" "$work/hotset/target"
echo /target >>"$work/hotset/.git/info/exclude"
export DIST=${DIST:+$(realpath -m "$DIST")}
if [ -z "$DIST" ]; then
    DIST=$root/target/dist/$version
    rm -rf "$DIST"
fi
# (Behind `||`, a failure would not end the subshell.)
set +e
(
    set -e
    cd "$work/hotset"
    packaging/version.py set "$version" >/dev/null
    packaging/changelog.py date "$version" "$day"
    CARGO_NET_OFFLINE=true packaging/locks.sh >/dev/null
    git commit --quiet --all --message "release: hotset $version"
    packaging/artifacts.sh
    packaging/checksums.sh
    changed=$(git status --porcelain | wc -l)
    [ "$changed" = 0 ] || fail "building the artifacts changed $changed files of the tree"
    git tag --annotate "v$version" --message "hotset $version"
)
status=$?
set -e
[ "$status" = 0 ] || fail "failed; $branch is as it was"
[ "$(git rev-parse HEAD)" = "$before" ] || fail "$branch has moved while the artifacts were built: try again"
git fetch --quiet --no-tags "$work/hotset" HEAD
commit=$(git rev-parse FETCH_HEAD)
git merge --quiet --ff-only "$commit" >/dev/null || fail "files were changed while the artifacts were built; $branch is as it was"
git fetch --quiet --no-tags "$work/hotset" "refs/tags/v$version:refs/tags/v$version"

cat <<TEXT

hotset $version is committed to $branch, tagged v$version, and built into $DIST.
Nothing is published. This publishes it, by the workflow release.yml, which builds the wheels of all
platforms, and asks for approval:

  git push --atomic origin $branch v$version

By hand, where that workflow is disabled, with what was built here:

  git push --atomic origin $branch v$version
  cargo publish --locked --package hotset
  twine upload $DIST/*.whl $DIST/hotset-$version.tar.gz
  gh release create v$version --verify-tag --title "hotset $version" --notes-file $DIST/NOTES.md $DIST/*

To take it back before that:

  git tag --delete v$version && git reset --hard $before
TEXT

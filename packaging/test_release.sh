#!/usr/bin/env bash
# Tests `make release` in clones of the last commit: what it refuses, in one line and without a
# change, and a release with the artifacts ARTIFACTS="source". `ARTIFACTS="source crate c deb"
# test_release.sh` builds more.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export ARTIFACTS=${ARTIFACTS-source}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
ok() { passed=$((passed + 1)); echo "ok: $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
export GIT_AUTHOR_NAME=Test GIT_AUTHOR_EMAIL=test@example.com GIT_COMMITTER_NAME=Test GIT_COMMITTER_EMAIL=test@example.com

# A clone, with the files that are not committed yet: a change of them is tested before its commit.
git clone --quiet --no-local "file://$root" "$work/tree"
{ git diff --name-only -z HEAD; git ls-files --others --exclude-standard -z; } | while IFS= read -r -d '' file; do
    rm -f "$work/tree/$file"
    [ ! -f "$file" ] || { mkdir -p "$work/tree/$(dirname "$file")" && cp -p "$file" "$work/tree/$file"; }
done
cd "$work/tree"
git checkout --quiet -B main
# A changelog that has something to release, whatever that of the tree has.
sed -i 's/^## \[Unreleased\]$/&\n\n### Added\n\n- Add a line for a test./' CHANGELOG.md
git add --all
git commit --quiet --allow-empty --message "a tree to release"
current=$(packaging/version.py get)
next=${current%.*}.$((${current##*.} + 1))
state() { git rev-parse HEAD; git status --porcelain; git tag; git symbolic-ref -q HEAD || true; }

# Arguments: WHAT PATTERN VERSION
refused() {
    local before
    before=$(state)
    ! packaging/release.sh "$3" >"$work/out" 2>"$work/err" || fail "$1: it was released"
    [ "$(wc -l <"$work/err")" = 1 ] && grep -q "$2" "$work/err" && [ ! -s "$work/out" ] || fail "$1: $(cat "$work/out" "$work/err")"
    [ "$(state)" = "$before" ] || fail "$1: something has changed"
    ok "$1: $(cat "$work/err")"
}
refused "no version" "which version" ""
for version in 1 1.2 v1.2.3 1.2.3-rc.1 01.2.3 1.2.3.4 "1.2.3 " "1.2.x"; do
    refused "a wrong version" "not a version of the form X.Y.Z" "$version"
done
refused "an older version" "is older than" 0.0.1
touch new && refused "a new file" "not clean" "$next" && rm new
echo >>README.md && refused "a changed file" "not clean" "$next" && git checkout --quiet README.md
git tag "v$next" && refused "an existing tag" "the tag v$next exists" "$next" && git tag --delete "v$next" >/dev/null
git tag v99.0.0 && refused "a version before the last release" "older than 99.0.0, the last release" "$next" && git tag --delete v99.0.0 >/dev/null
git checkout --quiet --detach && refused "no branch" "HEAD is on no branch" "$next" && git checkout --quiet main
cp CHANGELOG.md "$work/changelog"
printf '# Changelog\n\n## [Unreleased]\n\n### Added\n\n## [%s] - 2026-01-01\n\n- Add something.\n' "$current" >CHANGELOG.md
git commit --quiet --all --message "an empty changelog"
refused "an empty changelog" "no line under Unreleased" "$next"
git reset --quiet --hard HEAD~1
sed -i 's/^#define HOTSET_VERSION_PATCH .*/#define HOTSET_VERSION_PATCH 77/' include/hotset.h
git commit --quiet --all --message "another version in the header"
refused "versions that differ" "hotset.h:[0-9]*: 77, expected" "$next"
git reset --quiet --hard HEAD~1

mkdir "$work/full" && touch "$work/full/file"
DIST=$work/full refused "a folder that is not empty" "DIST is not empty" "$next"
[ -f "$work/full/file" ] || fail "a file of DIST was removed"

# A step that fails in the middle.
before=$(state)
! ARTIFACTS="source nothing" packaging/release.sh "$next" >"$work/out" 2>"$work/err" || fail "an artifact that does not exist was built"
[ "$(state)" = "$before" ] && grep -q "main is as it was" "$work/err" || fail "a failed release has changed something: $(cat "$work/err")"
[ ! -e target/dist/"$next"/SHA256SUMS ] || fail "a failed release has checksums"
ok "a release whose artifacts fail changes nothing"

before=$(git rev-parse HEAD)
DAY=2030-01-02 DIST=$work/dist packaging/release.sh "$next" >"$work/out" 2>"$work/err" || { cat "$work/out" "$work/err"; fail "the release"; }
[ "$(git rev-parse HEAD~1)" = "$before" ] && [ -z "$(git status --porcelain)" ] || fail "it is not one commit: $(git log --oneline -3)"
[ "$(git rev-parse "v$next^{commit}")" = "$(git rev-parse HEAD)" ] && [ "$(git cat-file -t "v$next")" = tag ] || fail "the tag"
[ "$(packaging/version.py check --tag "v$next")" = "version $next in all places" ] || fail "the versions"
grep -q "^## \[$next\] - 2030-01-02$" CHANGELOG.md || fail "the changelog has no date"
! packaging/changelog.py unreleased >/dev/null 2>&1 || fail "Unreleased is not empty"
(cd "$work/dist" && sha256sum --quiet --check SHA256SUMS) || fail "SHA256SUMS"
grep -q "Add a line for a test" "$work/dist/NOTES.md" || fail "NOTES.md: $(cat "$work/dist/NOTES.md")"
tar xzf "$work/dist/hotset-$next-source.tar.gz" -C "$work"
(cd "$work/hotset-$next" && packaging/version.py check >/dev/null) || fail "the versions in the source"
for command in "git push --atomic origin main v$next" "cargo publish" "twine upload" "gh release create v$next"; do
    grep -qF "  $command" "$work/out" || fail "not printed: $command"
done
[ "$(grep -n 'cargo publish\|twine upload\|gh release' "$work/out" | cut -d: -f2 | awk '{ print $1 }' | xargs)" = "cargo twine gh" ] || fail "the order: $(cat "$work/out")"
ok "a release: one commit, a tag, versions, changelog, $(grep -c . "$work/dist/SHA256SUMS") artifacts, checksums, commands in order"
refused "the same version again" "the tag v$next exists" "$next"
echo "$passed passed, 0 failed"

#!/usr/bin/env bash
# Runs the tests of the adapters to frameworks, and the frameworks' own tests of caches, as they are
# in their source distributions, on hotset. Needs what build.sh made, and the network once:
# environments and suites are kept in target/adapters.
#
#   run.sh [GROUP..]    of those below (all)
#
# What is expected to fail in a suite, and why, is in the .toml files of this folder; any other
# failure fails here.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../../.."
here=$PWD/bindings/python/adapters
kept=$PWD/target/adapters
mkdir -p "$kept/logs"
export PYTHONDONTWRITEBYTECODE=1
# Where CI is set, Flask-Caching's suite starts no server of its own, and fails.
unset CI
# Each suite gets the plugins that it names: those of other suites' tools take seconds to start.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1

versions=$(ls target/python/wheels | grep -v t | sort -V)
newest=$(tail -1 <<<"$versions")
# Django 4.2 runs on Python up to 3.12, 6 from 3.12 on.
oldest=$(head -1 <<<"$versions")
middle=$(grep -x 3.12 <<<"$versions" || echo "$newest")

# NAME VERSION PACKAGES..: makes an environment for this Python, or adds what is missing, and
# installs the wheel.
environment() {
    local name=$1 version=$2 wanted wheel
    shift 2
    wheel=$(sha256sum "target/python/wheels/$version"/*.whl)
    [ -x "$kept/$name/bin/python" ] || "target/python/$version/bin/python" -m venv "$kept/$name"
    wanted=$(printf '%s\n' "$version" "$@")
    if [ "$(cat "$kept/$name/wanted" 2>/dev/null)" != "$wanted" ]; then
        "$kept/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
        echo "$wanted" >"$kept/$name/wanted"
    fi
    if [ "$(cat "$kept/$name/wheel" 2>/dev/null)" != "$wheel" ]; then
        "$kept/$name/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall \
            "target/python/wheels/$version"/*.whl
        echo "$wheel" >"$kept/$name/wheel"
    fi
}

# NAME VERSION: prints the folder of the unpacked source distribution, which is fetched if it is
# missing.
suite() {
    local folder=$kept/${1/./_}-$2 part
    folder=${folder/Flask-Caching/flask_caching}
    folder=${folder/requests-cache/requests_cache}
    (
        # (Several groups may want the same one. A folder is whole, or not there.)
        flock 9
        if [ ! -d "$folder" ]; then
            part=$(mktemp -d -p "$kept")
            "$kept/newest/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary "$1" --dest "$part" "$1==$2" >&2
            tar -xzf "$part"/*.tar.gz -C "$part"
            mv "$part/${folder##*/}" "$folder"
            rm -r "$part"
        fi
    ) 9>"$kept/${folder##*/}.lock"
    echo "$folder"
}

# ENVIRONMENT OPTIONS..
run_pytest() {
    "$kept/$1/bin/python" -m pytest -q --tb=short -c /dev/null --rootdir . -p hotset.pytest_plugin "${@:2}"
}

# NAME FOLDER OF THE SUITE, OPTIONS..: with hotset in the place of what the suite tests.
run_on_hotset() {
    local name=$1 folder=$2
    shift 2
    cd "$folder"
    PYTHONPATH=$folder/src:$folder:$here:$here/../peers run_pytest newest -W ignore -o "cache_dir=$kept/logs/cache-$name" \
        -p expectations --expectations "$here/$name.toml" "$@"
}

# ENVIRONMENT VERSION SETTINGS LABELS..: Django's own runner, with a redis-server that the settings
# may name.
run_django() {
    local env=$1 folder
    folder=$(suite django "$2")
    cd "$folder/tests"
    PYTHONPATH=$here/django_suite:. "$kept/$env/bin/python" "$here/with_redis.py" \
        "$kept/$env/bin/python" -W ignore runtests.py --parallel=4 --settings="$3" "${@:4}"
}

own() {
    cd "$here/tests"
    run_pytest newest -p anyio -p no:cacheprovider -p _hypothesis_pytestplugin .
}
types() {
    cd "$here"
    run_pytest newest -p no:cacheprovider check_types.py
}
examples() {
    cd "$here"
    run_pytest newest -p no:cacheprovider check_examples.py
}
fleet() {
    cd "$here"
    run_pytest newest -p no:cacheprovider check_fleet.py
}
# What names no other backend than the default one.
default_labels=(cache sessions_tests template_tests.syntax_tests.test_cache middleware)
# What names LocMemCache, but for LocMemCache's own tests and the two of
# DefaultNonExpiringCacheKeyTests that look into its dicts.
locmem_labels=(sessions_tests template_tests.syntax_tests.test_cache middleware)
for test in CacheUtils PrefixedCacheUtils CacheHEADTest CacheI18nTest PrefixedCacheI18nTest CacheMiddlewareTest \
    TestWithTemplateResponse CacheHandlerTest CustomCacheKeyValidationTests CacheClosingTests \
    DefaultNonExpiringCacheKeyTests.test_caches_with_unset_timeout_has_correct_default_timeout \
    DefaultNonExpiringCacheKeyTests.test_caches_set_with_timeout_as_none_has_correct_default_timeout; do
    locmem_labels+=("cache.tests.$test")
done
# ENVIRONMENT VERSION
django() {
    # (On the newest, `own` runs them.)
    [ "$1" = newest ] || (cd "$here/tests" && run_pytest "$1" -p no:cacheprovider -p _hypothesis_pytestplugin test_django.py)
    (run_django "$1" "$2" hotset_settings hotset_suite.tests "${default_labels[@]}")
    (run_django "$1" "$2" hotset_for_locmem "${locmem_labels[@]}")
}
tiered() {
    [ "$1" = newest ] || (cd "$here/tests" && run_pytest "$1" -p no:cacheprovider test_django_tiered*.py)
    # (One test of the label `cache`, without which its models are missing. The default cache is a
    # TieredCache in both.)
    (run_django "$1" "$2" hotset_tiered_settings hotset_suite.tiered cache.tests.CacheClosingTests)
    (run_django "$1" "$2" hotset_tiered_for_locmem "${locmem_labels[@]}")
}
django42() { django django42 4.2.30; }
django52() { django django52 5.2.19; }
django61() { django newest 6.1.3; }
tiered42() { tiered django42 4.2.30; }
tiered52() { tiered django52 5.2.19; }
tiered61() { tiered newest 6.1.3; }
cachelib() {
    run_on_hotset cachelib "$(suite cachelib 0.17.0)" -p cachelib_on_hotset -p xprocess \
        tests/test_simple_cache.py tests/test_serializers.py tests/test_base_cache.py
}
flask_caching() {
    # (Without the backends that need servers.)
    run_on_hotset flask_caching "$(suite Flask-Caching 2.5.1)" -p cachelib_on_hotset -p xprocess -p asyncio \
        -k "not Redis and not Memcached" -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function tests
}
hishel() {
    # (Without two benchmarks of SQLite.)
    run_on_hotset hishel "$(suite hishel 2.0.0)" -p hishel_on_hotset -p anyio -k "not 100k" tests/test_asgi.py tests/test_requests.py \
        tests/test_sync_httpx.py tests/test_async_httpx.py tests/_core/_async/test_sqlite_storage.py tests/_core/_sync/test_sqlite_storage.py
}
aiocache() {
    run_on_hotset aiocache "$(suite aiocache 0.12.3)" -p aiocache_on_hotset -p asyncio -p pytest_mock -o asyncio_mode=auto \
        -o asyncio_default_fixture_loop_scope=function -m "not redis and not memcached" --ignore tests/ut/backends tests/acceptance tests/ut
}
dogpile() {
    cd "$here/suites"
    run_pytest newest -p no:cacheprovider test_dogpile.py
}
sqlalchemy() {
    local folder
    folder=$(suite sqlalchemy 2.1.9)
    cd "$here/suites"
    PYTHONPATH=$folder run_pytest newest -p no:cacheprovider test_sqlalchemy_example.py
}
langchain() {
    cd "$here/suites"
    run_pytest newest -p no:cacheprovider -p asyncio -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function test_langchain.py
}
requests_cache() {
    local folder
    folder=$(suite requests-cache 1.3.3)
    cd "$here/suites"
    USE_PYTEST_HTTPBIN=true PYTHONPATH=$folder run_pytest newest -W ignore -p no:cacheprovider -p httpbin -p requests_mock \
        -p tests.conftest test_requests_cache.py
}

groups=("$@")
if [ $# = 0 ]; then
    # (The longest first.)
    groups=(types own tiered61 django61 tiered52 django52 tiered42 django42 examples dogpile hishel aiocache requests_cache cachelib sqlalchemy
        flask_caching langchain fleet)
fi
# Whether one of these groups must run.
is_chosen() {
    local name
    for name in "$@"; do
        case " ${groups[*]} " in
        *" $name "*) return 0 ;;
        esac
    done
    return 1
}
# Whether this Python is 3.12 or older.
is_old() {
    [ "$(printf '%s\n3.12\n' "$1" | sort -V | head -1)" = "$1" ]
}

if [ "$newest" != 3.12 ] && is_old "$newest"; then
    echo "the newest Python with a wheel is $newest: Django 6 needs 3.12 or newer" >&2
    exit 1
fi
# All groups concurrently: they mostly wait. Each where there is a Python for it.
environment newest "$newest" -c "$here/constraints.txt" pytest==9.2.0 hypothesis tblib Django==6.1.3 django-stubs==6.1.2 djangorestframework==3.18.3 \
    django-ratelimit==4.1.0 cachelib==0.17.0 "Flask[async]" Flask-Caching==2.5.1 Flask-Session==0.8.0 pytest-asyncio==1.5.0 \
    pytest-xprocess==1.0.2 "hishel[async,httpx,requests,fastapi]==2.0.0" trio time-machine fakeredis redis==8.1.0 "httpx2>=2.9.1" \
    dogpile.cache==1.5.0 SQLAlchemy==2.1.9 aiocache==0.12.3 pytest-mock marshmallow requests-cache==1.3.3 pytest-httpbin requests-mock \
    responses rich langchain-core==1.8.3 langchain-tests==1.1.9 fastapi==0.165.0 gunicorn==27.0.1 uvicorn==0.54.0 mypy "pyright[nodejs]" types-requests &
preparing=("$!")
# With hypothesis and others as pinned in constraints.txt, whose Django is for the newest Python.
grep -v -i '^django' "$here/constraints.txt" >"$kept/constraints.txt"
django_packages=(-c "$kept/constraints.txt" pytest==9.2.0 hypothesis tblib redis==8.1.0)
if ! is_chosen django42 tiered42; then
    :
elif is_old "$oldest"; then
    environment django42 "$oldest" "${django_packages[@]}" Django==4.2.30 &
    preparing+=("$!")
else
    django42() { echo "skipped: Django 4.2 needs Python 3.12 or older"; }
    tiered42() { django42; }
fi
if is_chosen django52 tiered52; then
    environment django52 "$middle" "${django_packages[@]}" Django==5.2.19 &
    preparing+=("$!")
fi
for job in "${preparing[@]}"; do
    wait "$job"
done

# A few at a time: most of them sleep most of the time.
for group in "${groups[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge 4 ]; do
        wait -n || true
    done
    (
        # (In a condition, `set -e` would not end a group at its first failure.)
        set +e
        begin=$SECONDS
        (
            set -e
            "$group"
        ) >"$kept/logs/$group.log" 2>&1
        status=$?
        if [ "$status" = 0 ]; then
            echo "passed, $((SECONDS - begin)) s" >"$kept/logs/$group.outcome"
        else
            echo "FAILED" >"$kept/logs/$group.outcome"
        fi
    ) &
done
wait
failed=0
for group in "${groups[@]}"; do
    outcome=$(cat "$kept/logs/$group.outcome")
    echo "== $group: $outcome"
    if [ "$outcome" = FAILED ]; then
        failed=1
        tail -60 "$kept/logs/$group.log"
    else
        # The closing lines of pytest, and of Django's runner.
        grep -E "^(Ran |OK|[0-9]+ passed|skipped:|[0-9]+ tests pass)" "$kept/logs/$group.log" || true
    fi
done
exit "$failed"

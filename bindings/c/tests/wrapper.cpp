// Every method of hotset.hpp, with what it promises.
#include <hotset.hpp>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <unistd.h>

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                           \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

static hotset::cache make(std::uint64_t entries = 1000) {
    hotset::options options;
    options.max_entries = entries;
    return hotset::cache(options);
}

static void reads_and_writes() {
    hotset::cache cache = make();
    CHECK(!cache.get("a"));
    cache.put("a", "1");
    CHECK(cache.get("a")->data() == "1");
    CHECK(cache.get("a")->key() == "a");
    CHECK(cache.contains("a") && !cache.contains("b"));
    CHECK(!cache.put_if_absent("a", "2"));
    CHECK(cache.put_if_absent("b", std::string_view("with\0zero", 9)));
    CHECK(cache.get("b")->str().size() == 9);
    auto many = cache.get_many({"b", "none", "a"});
    CHECK(many.size() == 3 && many[0] && !many[1] && many[2]->data() == "1");
    CHECK(cache.get_many({}).empty());
    CHECK(cache.take("b")->str().size() == 9);
    CHECK(!cache.take("b"));
    CHECK(cache.remove("a") && !cache.remove("a"));
    cache.put("", "");
    CHECK(cache.get("")->data().empty());
    cache.clear();
    cache.run_pending();
    CHECK(!cache.contains(""));
    cache.set_name("wrapper");
    CHECK(cache.stats().hits > 0 && cache.stats().misses > 0);
    try {
        cache.advise(); // without a profile
        CHECK(false);
    } catch (const hotset::error &error) {
        CHECK(error.status() == HOTSET_INVALID);
    }
}

static void values_outlive_everything() {
    std::optional<hotset::value> kept;
    {
        hotset::cache cache = make();
        cache.put("k", "old");
        kept = cache.get("k");
        cache.put("k", "new");
        CHECK(kept->data() == "old" && cache.get("k")->data() == "new");
        hotset::cache moved = std::move(cache);
        CHECK(moved.get("k")->data() == "new");
    }
    hotset::value shared = kept->share();
    kept.reset();
    CHECK(shared.data() == "old" && shared.key() == "k");
}

static void counts_and_swaps() {
    hotset::cache cache = make();
    CHECK(cache.add("n", 5) == 5 && cache.add("n", -7) == -2);
    cache.put("text", "abc");
    try {
        cache.add("text", 1);
        CHECK(!"an error");
    } catch (const hotset::error &e) {
        CHECK(e.status() == HOTSET_NOT_A_NUMBER && e.what()[0] != 0);
    }
    auto seen = cache.get("text");
    CHECK(cache.compare_and_swap(*seen, "def"));
    CHECK(!cache.compare_and_swap(*seen, "ghi"));
    cache.remove("text");
    CHECK(!cache.compare_and_swap(*seen, "ghi"));
}

static void computes() {
    hotset::cache cache = make();
    auto append = [](std::optional<std::string_view> now) {
        return hotset::change::set(std::string(now.value_or("")) + "x", std::chrono::hours(1));
    };
    cache.compute("k", append);
    CHECK(cache.compute("k", append)->data() == "xx");
    cache.compute("k", [](auto) { return hotset::change::leave(); });
    CHECK(cache.get("k")->data() == "xx");
    CHECK(!cache.compute("k", [](auto) { return hotset::change::remove(); }));
    CHECK(!cache.contains("k"));
    try {
        cache.compute("k", [](auto) -> hotset::change { throw std::out_of_range("mine"); });
        CHECK(!"an exception");
    } catch (const std::out_of_range &) {
    }
    CHECK(!cache.contains("k"));
}

static void loads_once() {
    hotset::cache cache = make();
    std::atomic<int> calls{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([&] {
            auto value = cache.get_or_load("row", [&](std::string_view key) {
                calls++;
                std::this_thread::sleep_for(std::chrono::milliseconds(5));
                return std::optional<std::string>("loaded " + std::string(key));
            });
            CHECK(value->data() == "loaded row");
        });
    for (auto &thread : threads) thread.join();
    CHECK(calls == 1);
    CHECK(!cache.get_or_load("none", [](auto) { return std::optional<std::string>(); }));
    try {
        cache.get_or_load("bad", [](auto) -> std::optional<std::string> { throw std::out_of_range("mine"); });
        CHECK(!"an exception");
    } catch (const std::out_of_range &) {
    }
}

static void durations() {
    using namespace std::chrono;
    CHECK(hotset::ttl(hours(1)).milliseconds() == 3600000);
    CHECK(hotset::ttl(microseconds(2999)).milliseconds() == 2);
    CHECK(hotset::ttl(duration<double>(0.25)).milliseconds() == 250);
    CHECK(hotset::ttl(nanoseconds(1)).milliseconds() == 1 && hotset::ttl(seconds(0)).milliseconds() == 1);
    CHECK(hotset::ttl(hours(-1)).milliseconds() == 1 && hotset::ttl(hours::min()).milliseconds() == 1);
    // A duration beyond the range of milliseconds never expires, and is none of the special TTLs
    // either.
    CHECK(hotset::ttl(hours::max()).milliseconds() == HOTSET_TTL_NONE);
    CHECK(hotset::ttl(duration<double>(1e300)).milliseconds() == HOTSET_TTL_NONE);
    CHECK(hotset::ttl(duration<std::uint64_t, std::milli>(UINT64_MAX)).milliseconds() == HOTSET_TTL_NONE);
    static_assert(hotset::ttl(seconds(1)).milliseconds() == 1000);
}

static void walks() {
    hotset::cache cache = make();
    for (int i = 0; i < 100; i++) cache.put(std::to_string(i), "v", hotset::ttl::none());
    int seen = 0;
    cache.for_each([&](hotset::value value) { seen += value.data() == "v"; });
    CHECK(seen == 100);
}

static void restarts_warm() {
    std::string path = "/tmp/hotset-wrapper-" + std::to_string(::getpid());
    hotset::cache cache = make();
    for (int i = 0; i < 50; i++) cache.put(std::to_string(i), "v", hotset::ttl::none());
    CHECK(cache.save(path, 3) == 50);
    hotset::cache next = make();
    try {
        next.load(path, 4);
        CHECK(!"an error");
    } catch (const hotset::error &e) {
        CHECK(e.status() == HOTSET_INCOMPATIBLE);
    }
    CHECK(next.load(path, 3) == 50);
    CHECK(next.get("7")->data() == "v");
    hotset::cache::warmed warmed = next.warm();
    CHECK(warmed.entries == 49 && warmed.corrupt == 0);
    CHECK(next.load(path, 3, true) == 50);
    CHECK(next.load(path, 3, false, true) == 50);
    CHECK(::unlink(path.c_str()) == 0);
}

int main() {
    try {
        hotset::options options;
        options.size = 1;
        hotset::cache bad(options);
        CHECK(!"an error");
    } catch (const hotset::error &e) {
        CHECK(e.status() == HOTSET_INVALID);
    }
    reads_and_writes();
    values_outlive_everything();
    counts_and_swaps();
    computes();
    loads_once();
    durations();
    walks();
    restarts_warm();
    std::puts("hotset.hpp: ok");
    return 0;
}

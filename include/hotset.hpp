// hotset.hpp: hotset for C++17, over hotset.h and nothing else.
//
// Contents:
//  * hotset::cache owns a cache, hotset::value one entry that was read; both move and do not copy.
//    A value stays readable after its entry was evicted or replaced and after the cache was
//    destroyed.
//  * An absent key is an empty std::optional or false. Errors are thrown as hotset::error, which
//    has the status.
//  * Any thread may use a cache at any time, as in C. Moving or destroying a cache while others use
//    it is a mistake.
//  * A callable given to compute or get_or_load may throw: that call throws the same exception.
//    Callers that were waiting for the same load get hotset::error with HOTSET_LOAD_FAILED.
//  * A removal listener is set in the options, as in C, and must not throw.
#ifndef HOTSET_HPP
#define HOTSET_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <optional>
#include <ratio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <hotset.h>

namespace hotset {

class error : public std::runtime_error {
public:
    explicit error(hotset_status status) : std::runtime_error(hotset_strerror(status)), status_(status) {}
    hotset_status status() const noexcept { return status_; }

private:
    hotset_status status_;
};

namespace detail {

inline void check(hotset_status status) {
    if (status == HOTSET_OK) return;
    if (status == HOTSET_NO_MEMORY) throw std::bad_alloc();
    throw error(status);
}

// True for OK, false for the one status that means "no" in this call; all else is thrown.
inline bool check_or(hotset_status status, hotset_status no) {
    if (status == no) return false;
    check(status);
    return true;
}

} // namespace detail

// TTL of an entry: a duration, or one of the three below.
class ttl {
public:
    // At least a millisecond, which is the resolution; a negative duration expires immediately,
    // too. From 2^63 milliseconds on: never.
    template <class Rep, class Period>
    constexpr ttl(std::chrono::duration<Rep, Period> time) : ms_(whole(std::chrono::duration<long double, std::milli>(time))) {}
    static constexpr ttl cache_default() { return ttl(HOTSET_TTL_DEFAULT); }
    static constexpr ttl none() { return ttl(HOTSET_TTL_NONE); }
    static constexpr ttl keep() { return ttl(HOTSET_TTL_KEEP); }
    constexpr std::uint64_t milliseconds() const { return ms_; }

private:
    explicit constexpr ttl(std::uint64_t ms) : ms_(ms) {}
    // Through a floating type, since hours::max() and its like are more milliseconds than an
    // integer holds.
    static constexpr std::uint64_t whole(std::chrono::duration<long double, std::milli> time) {
        if (!(time.count() > 1)) return 1;
        return time.count() < 0x1p63L ? static_cast<std::uint64_t>(time.count()) : HOTSET_TTL_NONE;
    }
    std::uint64_t ms_;
};

// One entry as it was when it was read.
class value {
public:
    value(value &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    value &operator=(value &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    value(const value &) = delete;
    value &operator=(const value &) = delete;
    ~value() {
        if (handle_) hotset_release(handle_);
    }

    // Takes ownership of a handle from C code.
    static value adopt(hotset_value *handle) noexcept { return value(handle); }

    // Views of the bytes, for as long as this object holds them: not of a temporary, whose views
    // would dangle. (The compiler does not reject `cache.get(key)->data()`: use it within the
    // statement, or keep the result of get.)
    std::string_view data() const & { return view(hotset_value_data); }
    std::string_view data() const && = delete;
    std::string_view key() const & { return view(hotset_value_key); }
    std::string_view key() const && = delete;
    std::uint64_t version() const {
        std::uint64_t version = 0;
        detail::check(hotset_value_version(handle_, &version));
        return version;
    }
    // A copy of the bytes, also of a temporary.
    std::string str() const { return std::string(data()); }
    operator std::string_view() const & { return data(); }
    operator std::string_view() const && = delete;

    // A second handle to the same bytes; nothing is copied.
    value share() const {
        detail::check(hotset_retain(handle_));
        return value(handle_);
    }

private:
    explicit value(hotset_value *handle) noexcept : handle_(handle) {}
    template <class Accessor> std::string_view view(Accessor accessor) const {
        const void *data = nullptr;
        std::size_t len = 0;
        detail::check(accessor(handle_, &data, &len));
        return {static_cast<const char *>(data), len};
    }

    hotset_value *handle_;
};

// What compute does with the entry.
class change {
public:
    static change leave() { return change(kind::leave, {}, ttl::keep()); }
    static change remove() { return change(kind::remove, {}, ttl::keep()); }
    static change set(std::string data, ttl time = ttl::cache_default()) {
        return change(kind::set, std::move(data), time);
    }

    hotset_status apply(hotset_reply *reply) const {
        switch (kind_) {
        case kind::remove: return hotset_reply_remove(reply);
        case kind::set: return hotset_reply_set(reply, data_.data(), data_.size(), ttl_.milliseconds());
        case kind::leave: break;
        }
        return HOTSET_OK;
    }

private:
    enum class kind { leave, remove, set };
    change(kind k, std::string data, ttl time) : kind_(k), data_(std::move(data)), ttl_(time) {}

    kind kind_;
    std::string data_;
    ttl ttl_;
};

// hotset_options with the default values.
struct options : hotset_options {
    options() { detail::check(hotset_options_init(this, sizeof(hotset_options))); }
};

class cache {
public:
    explicit cache(const hotset_options &options) { detail::check(hotset_open(&options, &cache_)); }
    cache(cache &&other) noexcept : cache_(std::exchange(other.cache_, nullptr)) {}
    cache &operator=(cache &&other) noexcept {
        std::swap(cache_, other.cache_);
        return *this;
    }
    cache(const cache &) = delete;
    cache &operator=(const cache &) = delete;
    ~cache() {
        if (cache_) hotset_close(cache_);
    }

    std::optional<value> get(std::string_view key) const {
        hotset_value *out = nullptr;
        return found(hotset_get(cache_, key.data(), key.size(), &out), out);
    }

    // Returns the values in the order of the keys; empty for a key that is absent or expired.
    std::vector<std::optional<value>> get_many(const std::vector<std::string_view> &keys) const {
        std::vector<hotset_slice> slices(keys.size());
        for (std::size_t i = 0; i < keys.size(); i++) {
            slices[i].data = keys[i].data();
            slices[i].len = keys[i].size();
        }
        std::vector<hotset_value *> handles(keys.size(), nullptr);
        std::vector<std::optional<value>> values;
        values.reserve(keys.size()); // from here on nothing throws while handles have no owner
        std::size_t count = 0;
        detail::check(hotset_get_many(cache_, slices.data(), slices.size(), handles.data(), &count));
        for (hotset_value *handle : handles)
            values.push_back(handle ? std::optional<value>(value::adopt(handle)) : std::nullopt);
        return values;
    }

    bool contains(std::string_view key) const {
        return detail::check_or(hotset_contains(cache_, key.data(), key.size()), HOTSET_NOT_FOUND);
    }

    void put(std::string_view key, std::string_view data, ttl time = ttl::cache_default()) {
        detail::check(hotset_put_ttl(cache_, key.data(), key.size(), data.data(), data.size(), time.milliseconds()));
    }

    // Returns false if the key is present; its entry is unchanged then.
    bool put_if_absent(std::string_view key, std::string_view data, ttl time = ttl::cache_default()) {
        return detail::check_or(hotset_put_if_absent(cache_, key.data(), key.size(), data.data(), data.size(),
                                                     time.milliseconds(), nullptr),
                                HOTSET_EXISTS);
    }

    bool remove(std::string_view key) {
        return detail::check_or(hotset_remove(cache_, key.data(), key.size()), HOTSET_NOT_FOUND);
    }

    // Removes the entry and returns it.
    std::optional<value> take(std::string_view key) {
        hotset_value *out = nullptr;
        return found(hotset_take(cache_, key.data(), key.size(), &out), out);
    }

    // Adds to a counter (8 bytes, little-endian); an absent one starts at `delta` and expires after
    // `time`.
    std::int64_t add(std::string_view key, std::int64_t delta, ttl time = ttl::cache_default()) {
        std::int64_t result = 0;
        detail::check(hotset_add(cache_, key.data(), key.size(), delta, time.milliseconds(), &result));
        return result;
    }

    // Replaces the entry if it is still the one that was read. Returns false if it was replaced in
    // between, or the key is absent.
    bool compare_and_swap(const value &seen, std::string_view data, ttl time = ttl::cache_default()) {
        std::string_view key = seen.key();
        hotset_status status = hotset_cas(cache_, key.data(), key.size(), seen.version(), data.data(), data.size(),
                                          time.milliseconds());
        return status != HOTSET_NOT_FOUND && detail::check_or(status, HOTSET_CONFLICT);
    }

    // fn: (std::optional<std::string_view> current) -> hotset::change, atomic for this key. Returns
    // the resulting value.
    template <class Fn> std::optional<value> compute(std::string_view key, Fn &&fn) {
        callback<Fn> call{fn, nullptr};
        hotset_value *out = nullptr;
        auto run = [](void *arg, const hotset_slice *current, hotset_reply *reply) -> hotset_status {
            return static_cast<callback<Fn> *>(arg)->guard([&](auto &f) {
                std::optional<std::string_view> seen;
                if (current) seen.emplace(static_cast<const char *>(current->data), current->len);
                return f(seen).apply(reply);
            });
        };
        hotset_status status = hotset_compute(cache_, key.data(), key.size(), run, &call, &out);
        call.rethrow();
        return found(status, out);
    }

    // fn: (std::string_view key) -> std::optional<std::string>, called by one caller while all
    // others for this key wait; an empty result means that there is no value, which all of them
    // get. `time` is the TTL of the loaded value.
    template <class Fn>
    std::optional<value> get_or_load(std::string_view key, Fn &&fn, ttl time = ttl::cache_default()) {
        struct loader : callback<Fn> {
            ttl time;
        } call{{fn, nullptr}, time};
        hotset_value *out = nullptr;
        auto run = [](void *arg, const void *k, std::size_t len, hotset_reply *reply) -> hotset_status {
            auto *self = static_cast<loader *>(arg);
            return self->guard([&](auto &f) {
                std::optional<std::string> data = f(std::string_view(static_cast<const char *>(k), len));
                if (!data) return static_cast<hotset_status>(HOTSET_NOT_FOUND);
                return hotset_reply_set(reply, data->data(), data->size(), self->time.milliseconds());
            });
        };
        hotset_status status = hotset_get_or_load(cache_, key.data(), key.size(), run, &call, &out);
        call.rethrow();
        return found(status, out);
    }

    // fn: (hotset::value) -> void, for each entry.
    template <class Fn> void for_each(Fn &&fn) const {
        struct iterator {
            hotset_iter *it = nullptr;
            ~iterator() {
                if (it) hotset_iter_close(it);
            }
        } walk;
        detail::check(hotset_iter_open(cache_, &walk.it));
        hotset_value *out = nullptr;
        while (detail::check_or(hotset_iter_next(walk.it, &out), HOTSET_NOT_FOUND)) fn(value::adopt(out));
    }

    // Gives the cache a name, under which the process's stats file has its statistics.
    void set_name(const std::string &name) { detail::check(hotset_set_name(cache_, name.c_str())); }

    hotset_stats_data stats() const {
        hotset_stats_data data;
        detail::check(hotset_stats(cache_, &data, sizeof data));
        return data;
    }

    // The hit ratio at other sizes, of a cache that was opened with the option `profile`.
    hotset_advice advise() const {
        hotset_advice advice;
        detail::check(hotset_advise(cache_, &advice, sizeof advice));
        return advice;
    }

    // Saves the entries to a file, for the next process to begin warm. Returns their number.
    std::uint64_t save(const std::string &path, std::uint64_t schema = 0) const {
        hotset_snapshot_options how = snapshot(schema);
        std::uint64_t entries = 0;
        detail::check(hotset_save(cache_, path.c_str(), &how, &entries));
        return entries;
    }

    // Loads a file: entries are restored when they are looked up, or with `eager` before it
    // returns. Returns the file's number of entries. The file is mapped, and truncating it in place
    // kills this process; with `copy` it is read into memory: see hotset_load.
    std::uint64_t load(const std::string &path, std::uint64_t schema = 0, bool eager = false, bool copy = false) {
        hotset_snapshot_options how = snapshot(schema);
        how.eager = eager;
        how.copy = copy;
        std::uint64_t entries = 0;
        detail::check(hotset_load(cache_, path.c_str(), &how, &entries));
        return entries;
    }

    // The number of restored entries, and of those whose records are corrupt.
    struct warmed {
        std::uint64_t entries, corrupt;
    };

    // Restores the entries that are still in the file only.
    warmed warm() {
        warmed result{0, 0};
        detail::check(hotset_warm(cache_, &result.entries, &result.corrupt));
        return result;
    }

    void clear() { detail::check(hotset_clear(cache_)); }
    void run_pending() { detail::check(hotset_run_pending(cache_)); }

    // For the C calls that have no method here; the cache stays the owner.
    hotset_cache *get_c() const noexcept { return cache_; }

private:
    static hotset_snapshot_options snapshot(std::uint64_t schema) {
        hotset_snapshot_options how;
        detail::check(hotset_snapshot_options_init(&how, sizeof how));
        how.schema = schema;
        return how;
    }

    // By reference: the call that sets `out` may be evaluated after its other argument.
    static std::optional<value> found(hotset_status status, hotset_value *const &out) {
        if (!detail::check_or(status, HOTSET_NOT_FOUND) || !out) return std::nullopt;
        return value::adopt(out);
    }

    // Carries an exception past C, which must not see it.
    template <class Fn> struct callback {
        std::remove_reference_t<Fn> &fn;
        std::exception_ptr thrown;

        template <class Body> hotset_status guard(Body &&body) noexcept {
            try {
                return body(fn);
            } catch (...) {
                thrown = std::current_exception();
                return HOTSET_LOAD_FAILED;
            }
        }
        void rethrow() const {
            if (thrown) std::rethrow_exception(thrown);
        }
    };

    hotset_cache *cache_ = nullptr;
};

} // namespace hotset

#endif

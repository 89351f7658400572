// A view can be made of a value that is kept, and not of a temporary: the code that `-DDANGLES=1`
// to `3` adds must not compile.
#include <hotset.hpp>
#include <type_traits>

static_assert(std::is_convertible_v<hotset::value &, std::string_view>);
static_assert(std::is_convertible_v<const hotset::value &, std::string_view>);
static_assert(!std::is_convertible_v<hotset::value, std::string_view>);
static_assert(!std::is_convertible_v<const hotset::value, std::string_view>);

std::size_t length(hotset::cache &cache) {
#if DANGLES == 1
    std::string_view view = *cache.get("key");
#elif DANGLES == 2
    std::string_view view = cache.take("key").value().data();
#elif DANGLES == 3
    std::string_view view = (*cache.get("key")).key();
#else
    auto value = cache.get("key");
    std::string_view view = value ? std::string_view(*value) : std::string_view();
    view = value->key();
    if ((*cache.get("key")).str().empty()) return 0;
#endif
    return view.size();
}

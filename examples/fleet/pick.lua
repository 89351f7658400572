-- wrk's requests: products chosen by Zipf's law; its figures as one line of JSON.
--   wrk .. -s pick.lua URL -- PRODUCTS SEED

local threads = 0

function setup(thread)
    thread:set("number", threads)
    threads = threads + 1
end

function init(args)
    local products, seed = tonumber(args[1]), tonumber(args[2])
    math.randomseed(seed * 1000 + number)
    cumulative = {}
    local sum = 0
    for product = 1, products do
        sum = sum + 1 / product
        cumulative[product] = sum
    end
    total = sum
end

function request()
    local sought = math.random() * total
    local low, high = 1, #cumulative
    while low < high do
        local middle = math.floor((low + high) / 2)
        if cumulative[middle] < sought then low = middle + 1 else high = middle end
    end
    return wrk.format("GET", "/product/" .. low)
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %.3f, "p50": %.3f, "p99": %.3f, "errors": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout
    ))
end

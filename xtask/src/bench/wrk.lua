-- Asks for the paths of a file in turn. The requests are made once, at the start.
local requests = {}
local next = 0

function init(args)
  for path in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
end

function request()
  next = next % #requests + 1
  return requests[next]
end

function done(summary, latency, _)
  local errors = summary.errors
  local wrong = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '{"seconds": %f, "bytes": %d, "answers": %d, "errors": %d, "p99_us": %d}\n',
    summary.duration / 1e6, summary.bytes, summary.requests, wrong, latency:percentile(99)))
end

-- The load of the HTTP benchmark: POSTs of about 290 bytes of JSON.
--
-- Arguments: mode (first | replay | keyless) and a number that makes this run's keys its own.
-- `first` never sends a key twice; `replay` goes round a set of 1024 keys; `keyless` sends none.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("thread_number", threads)
end

local body = '{"amount":"129.90","currency":"EUR","debtor":{"name":"A. Customer","account":'
  .. '"DE02120300000000202051"},"creditor":{"name":"B. Merchant","account":'
  .. '"DE02500105170137075030"},"reference":"invoice 2024-000417","note":"'
  .. string.rep("x", 60) .. '","execution":"immediate"}'

local before, keyless = "", ""
local mode, run, sent = "first", 0, 0

function init(arguments)
  mode = arguments[1] or mode
  run = tonumber(arguments[2]) or 0
  before = "POST " .. wrk.path .. " HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    .. "Content-Type: application/json\r\nContent-Length: " .. #body .. "\r\n"
  keyless = before .. "\r\n" .. body
  if mode == "replay" then
    sent = thread_number * 512
  end
end

local function key(thread, number)
  return string.format(
    "Idempotency-Key: \"%08x-%04x-4000-8000-%012x\"\r\n\r\n", run, thread, number)
end

function request()
  sent = sent + 1
  if mode == "first" then
    return before .. key(thread_number, sent) .. body
  elseif mode == "replay" then
    return before .. key(0, sent % 1024) .. body
  end
  return keyless
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end

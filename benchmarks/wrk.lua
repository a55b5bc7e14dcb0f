-- What wrk runs for benchmarks/wrk.py: every thread is one caller that sends prepared requests in turn and writes a line
-- for each answer: when it came, its latency (seconds of the monotonic clock), its status, and the text of an error.

local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds, nanoseconds; } moment; int clock_gettime(int clock, moment *now);")
local CLOCK_MONOTONIC = 1
local moment = ffi.new("moment")

local function now()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, moment)
  return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end

local threads = 0

function setup(thread)
  thread:set("caller", threads)
  threads = threads + 1
end

-- args: folder of the files 0, 1, ... that hold a request each, how many there are, and how many callers.
function init(args)
  io.stdout:setvbuf("line")
  requests, turn = {}, 0
  local count, callers = tonumber(args[2]), tonumber(args[3])
  for number = caller % count, count - 1, callers do
    local file = assert(io.open(args[1] .. "/" .. number, "rb"))
    table.insert(requests, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn % #requests + 1
  began = now()
  return requests[turn]
end

function response(status, headers, body)
  local came = now()
  local text = status == 200 and "" or body:sub(1, 600):gsub("%c", " ")
  io.write(string.format("answer %.6f %.6f %d %s\n", came, came - began, status, text))
end

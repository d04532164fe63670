#!lua flags=allow-oom
-- admin_seats: where each of these jobs stands, at one instant. Reads whole lists: for `check` only. Changes nothing.
-- keys: jobs ready priority delayed sessions suspects crashes done dead stats watched cancels progress lingering ties meta
-- ARGV[1] layout  [2..] ids
-- returns for each id what include/seat.lua tells
-- include: record
-- include: ties
-- include: ending
-- include: seat
local q = queue_at(1)
local seats = {}
for i = 2, #ARGV do seats[i - 1] = seat_of(q, ARGV[i]) end
return seats

//! The gateway from outside: one binary, one folder per surface, and the tests that hold the house to its map.

mod architecture;

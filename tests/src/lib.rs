//! Helpers shared by the tests of the whole system, which stand in `tests/tests/`.

//! Breaks onlyonce on purpose: a seeded simulation with an oracle.

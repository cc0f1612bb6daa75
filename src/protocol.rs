//! What does this byte mean? Pure: no socket, no clock, no chance.

pub mod name;

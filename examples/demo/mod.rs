//! A small world of coloured solids.
#![allow(dead_code, unreachable_pub)]

pub mod camera;
pub mod caption;
pub mod layout;
pub mod parse;
pub mod rng;
pub mod split;
pub mod world;

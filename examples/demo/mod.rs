//! A small world of coloured solids.
#![allow(dead_code, unreachable_pub)]

pub mod camera;
pub mod caption;
pub mod fit;
pub mod geometry;
pub mod judge;
pub mod layout;
pub mod paint;
pub mod parse;
pub mod reading;
pub mod render;
pub mod rng;
pub mod segment;
pub mod shading;
pub mod shadow;
pub mod solid;
pub mod split;
pub mod surface;
pub mod twin;
pub mod world;

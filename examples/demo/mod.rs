//! A small world of coloured solids.
#![allow(dead_code, unreachable_pub)]

pub mod camera;
pub mod caption;
pub mod geometry;
pub mod layout;
pub mod paint;
pub mod parse;
pub mod render;
pub mod rng;
pub mod shading;
pub mod shadow;
pub mod solid;
pub mod split;
pub mod world;

//! Bad input gives a typed error that names the thing, never a panic, and nothing half loaded.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod config;
mod copy;
mod formats;
mod pictures;
mod running;
mod settings;
mod weights;

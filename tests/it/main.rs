//! The real server, bound to a free port, called by real clients over the network.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod actions;
mod catalog;
mod configuration;
mod connect;
mod doctor;
mod events;
mod feed;
mod harness;
mod hostile;
mod openapi;
mod pages;
mod players;
mod process;
mod read_only;
mod rest;
mod schema;
mod tail;
mod web;
mod writes;

//! Every text a person reads, under a snapshot: a change of wording is reviewed as a diff.
//! `make texts` accepts what changed.

mod cli;
mod errors;
mod notes;

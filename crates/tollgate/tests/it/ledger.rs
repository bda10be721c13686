//! The promises of the ledger, on both databases: a cap holds under concurrency and across replicas, and every request
//! is settled exactly once, also when its replica dies or the database goes away.

mod caps;
mod deaths;
mod folds;
mod house;
mod leases;
mod lists;
mod outages;
mod pools;
mod random;
mod replicas;
mod settlements;
mod unheard;

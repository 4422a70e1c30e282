//! The checkpointer: moves full segments of the log into the B-tree, and tries again after a
//! failure.

use super::worker::{Rest, Rested, Threads, Worker};
use crate::engine::kernel::{Kernel, NextCheckpoint};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(super) struct Checkpointer {
    kernel: Arc<Kernel>,
    worker: Worker,
}

impl Checkpointer {
    pub(super) fn new(kernel: Arc<Kernel>, threads: Threads) -> Self {
        Self { kernel, worker: Worker::new("cloakroom-checkpoint", threads) }
    }

    /// Has its thread look for work. Answers whether there is one.
    pub(super) fn call(self: &Arc<Self>) -> bool {
        let called = self.worker.call(|number| {
            let this = Arc::clone(self);
            move || {
                let _running = this.worker.running(number);
                this.run();
            }
        });
        // Without a thread the caller runs the checkpoint.
        called.unwrap_or(false)
    }

    #[cfg(test)]
    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn stop(&self) {
        self.worker.stop();
    }

    fn run(&self) {
        loop {
            let rested = match self.kernel.next_checkpoint() {
                NextCheckpoint::Now => Rested::Elapsed,
                NextCheckpoint::After(time) => self.worker.rest(Rest::For(time)),
                NextCheckpoint::None => match self.worker.rest(Rest::IdleOnly) {
                    Rested::Elapsed => Rested::Called,
                    rested => rested,
                },
            };
            match rested {
                // A failure is kept for the writers that wait, and counted.
                Rested::Elapsed => drop(self.kernel.run_checkpoint()),
                Rested::Called => {}
                Rested::Ends => return,
            }
        }
    }
}

//! What shadows desire, between jobs: one thing at a time, and jobs first.

use std::time::Instant;

use dispatcher::{ExecutionId, Operation};

use super::Agent;
use crate::held::Held;
use crate::shadows::Facts;
use crate::worker::Work;

impl Agent {
    /// Says what there is to say. Where nothing else is held, what is desired goes into force, and what is in force is
    /// reported: once, at the end.
    pub(super) async fn mind_the_shadows(&mut self) {
        self.publish_of_shadows();
        if self.held.is_some() || self.offered.is_some() || self.worker.idle().is_none() {
            return;
        }
        if let Some((id, operation)) = self.shadows.work() {
            return self.grant(&id, operation);
        }
        let now = Instant::now();
        if let Some(host) = self.worker.idle() {
            self.shadows.look(now, host).await;
        }
        let (firmware, certificate) = self.seeing.facts();
        self.shadows.note(now, &Facts { firmware, certificate, last: self.history.settled().last() });
        self.publish_of_shadows();
    }

    fn publish_of_shadows(&mut self) {
        while let Some((topic, payload)) = self.shadows.poll() {
            self.publish(topic, payload);
        }
    }

    fn grant(&mut self, id: &ExecutionId, operation: Operation) {
        let Some(host) = self.worker.idle() else { return };
        if let Err(error) = host.accept(id) {
            tracing::error!(%error, "no work is taken up without a journal");
            return self.shadows.not_now(Instant::now());
        }
        tracing::info!(shadow = id.shadow(), "what is desired is put in force");
        let mut held = Held::new(None);
        held.operation = Some(operation.clone());
        self.held = Some(held);
        self.start(Work::Run(operation));
    }
}

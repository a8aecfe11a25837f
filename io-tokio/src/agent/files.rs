//! The agent's files, off the task that moves users' bytes.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::KeyPairs;

/// Reads and writes key pairs on a thread for that, one call at a time: none overtakes another, and on a disk that hangs
/// no more than one thread waits.
#[derive(Clone)]
pub(super) struct Files {
    pairs: Arc<dyn KeyPairs>,
    turn: Arc<Semaphore>,
    patience: Duration,
}

/// Why nothing came of a call.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesFault {
    /// What is wrong with the files.
    #[error("{0}")]
    Files(String),
    /// It has panicked.
    #[error("a fault in this program; its log says where")]
    Panicked,
    /// It, or one before it, has not come back. It may end yet, unheard.
    #[error("the disk with this agent's files does not answer; see that it is sound")]
    Hung,
}

impl Files {
    /// Every call has an answer within `patience`.
    pub(super) fn new(pairs: Arc<dyn KeyPairs>, patience: Duration) -> Self {
        Self {
            pairs,
            turn: Arc::new(Semaphore::new(1)),
            patience,
        }
    }

    /// Carries out a call.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&dyn KeyPairs) -> Result<T, String> + Send + 'static,
    ) -> Result<T, FilesFault> {
        let (pairs, turn) = (Arc::clone(&self.pairs), Arc::clone(&self.turn));
        let call = async {
            let turn = turn.acquire_owned().await;
            let act = move || {
                let _turn = turn;
                act(&*pairs)
            };
            spawn_blocking(act).await
        };
        match timeout(self.patience, call).await {
            Ok(Ok(answer)) => answer.map_err(FilesFault::Files),
            Ok(Err(_panicked)) => Err(FilesFault::Panicked),
            Err(_) => Err(FilesFault::Hung),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use adit_proto_core::{link::tls::AgentTls, output::Renewed};

    use super::*;
    use crate::agent::{Credentials, KeptPairs, Swap, Validity};

    /// Has none.
    struct NoPairs;

    #[tokio::test]
    async fn a_call_is_answered_whatever_becomes_of_it() {
        let patient = Files::new(Arc::new(NoPairs), Duration::from_secs(60));
        let answer = patient.ask(|pairs| pairs.request()).await;
        assert_eq!(answer.unwrap_err().to_string(), "none");
        let answer = patient.ask(|_| -> Result<(), _> { panic!("on purpose") });
        assert!(matches!(answer.await, Err(FilesFault::Panicked)));
        let files = Files {
            patience: Duration::from_millis(100),
            ..patient.clone()
        };
        let (go_on, hangs) = channel::<()>();
        let hung = files.ask(move |_| hangs.recv().map_err(|e| e.to_string()));
        assert!(matches!(hung.await, Err(FilesFault::Hung)));
        // Those behind it take no threads, and have their answers.
        let (began, begun) = channel();
        for _ in 0..8 {
            let began = began.clone();
            let behind = files.ask(move |_| began.send(()).map_err(|e| e.to_string()));
            assert!(matches!(behind.await, Err(FilesFault::Hung)));
        }
        assert!(begun.try_recv().is_err());
        go_on.send(()).unwrap();
        patient.ask(|_| Ok(())).await.unwrap();
    }

    impl KeyPairs for NoPairs {
        fn tls(&self, _: Credentials) -> Result<AgentTls, String> {
            Err("none".to_owned())
        }

        fn validity(&self) -> Result<Validity, String> {
            Err("none".to_owned())
        }

        fn kept(&self) -> KeptPairs {
            KeptPairs::default()
        }

        fn swap(&self) -> Swap {
            Swap::WhenIdle
        }

        fn request(&self) -> Result<String, String> {
            Err("none".to_owned())
        }

        fn store(&self, _: Renewed) -> Result<(), String> {
            Err("none".to_owned())
        }

        fn adopt(&self) -> Result<Validity, String> {
            Err("none".to_owned())
        }

        fn discard(&self) -> Result<(), String> {
            Err("none".to_owned())
        }

        fn revert(&self) -> Result<Validity, String> {
            Err("none".to_owned())
        }
    }
}

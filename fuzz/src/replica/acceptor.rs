//! The end that accepts.

use adit_proto_core::replica::{Conduct, FRAME_LEN, RECORD_OVERHEAD, ReplicaId, Seal};

use super::{
    CLUSTER, COMMAND, MAC, NONCE, Outcome, REPLICA, Run, SIZE, Settings, is_good, play, spoiled,
};
use crate::input::{Input, pieces};

/// Any split of what a dialer sends has the same outcome, nothing behind it is taken, only the dialer's own bytes verify
/// it, and a refusal tells nothing that the dialer did not say.
pub fn replica_acceptor(data: &[u8]) {
    let mut input = Input::new(data);
    let settings = Settings::draw(&mut input);
    let seed = input.byte();
    let [_, good] = settings.good();
    let stream = spoiled(&good, &mut input);
    let whole = play(settings.acceptor(), std::iter::once(&stream[..]));
    assert_eq!(whole, play(settings.acceptor(), pieces(&stream, seed)));
    assert_eq!(whole, play(settings.acceptor(), pieces(&stream, 0)));
    judge(settings, &good, &stream, &whole);
}

fn judge(settings: Settings, good: &[u8], stream: &[u8], run: &Run) {
    if let Some(Outcome::Announced(replica)) = run.outcome {
        assert!(!settings.with_keys && replica < ReplicaId(2) && run.sent.is_empty());
        return;
    }
    if !settings.with_keys {
        assert!(run.sent.is_empty());
        return;
    }
    let is_sealed = settings.seal == Seal::Require;
    let record = if is_sealed { RECORD_OVERHEAD } else { 0 };
    let hello = [CLUSTER, SIZE, COMMAND, REPLICA, NONCE];
    let is_same = is_good(good, stream, &[&hello, &[SIZE, COMMAND, MAC]]);
    let verified = Outcome::Verified(ReplicaId(1), is_sealed);
    match settings.conduct {
        Conduct::Strict => {
            assert_eq!(run.outcome == Some(verified), is_same);
            refusal(stream, &run.sent);
        }
        // A body of any length may stand between what counts.
        Conduct::Reference => assert!(!is_same || run.outcome == Some(verified)),
    }
    if is_same {
        assert_eq!(run.used, 2 * FRAME_LEN + record);
    }
    // A challenge or a refusal, and the first record where the dialer is verified.
    assert!([0, FRAME_LEN, FRAME_LEN + record].contains(&run.sent.len()));
}

/// What is sent with a status other than 0 carries no nonce, no MAC, and the cluster that the dialer named.
fn refusal(stream: &[u8], sent: &[u8]) {
    if sent.get(192).is_some_and(|status| *status != 0) {
        assert_eq!(sent.get(CLUSTER), stream.get(CLUSTER));
        assert!(
            sent.iter()
                .skip(NONCE.start)
                .take(64)
                .all(|byte| *byte == 0)
        );
        assert!(
            stream
                .iter()
                .skip(NONCE.start)
                .take(32)
                .any(|byte| *byte != 0)
        );
    }
}

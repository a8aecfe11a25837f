//! The end that dials.

use adit_proto_core::replica::{Conduct, FRAME_LEN, RECORD_OVERHEAD, ReplicaId, Seal};

use super::{COMMAND, MAC, NONCE, Outcome, Run, SIZE, STATUS, Settings, is_good, play, spoiled};
use crate::input::{Input, pieces};

/// Any split of an answer has the same outcome, nothing behind it is taken, and only the acceptor's own bytes verify it.
pub fn replica_dialer(data: &[u8]) {
    let mut input = Input::new(data);
    let settings = Settings::draw(&mut input);
    let seed = input.byte();
    let [good, _] = settings.good();
    let stream = spoiled(&good, &mut input);
    let whole = play(settings.dialer(), std::iter::once(&stream[..]));
    assert_eq!(whole, play(settings.dialer(), pieces(&stream, seed)));
    assert_eq!(whole, play(settings.dialer(), pieces(&stream, 0)));
    judge(settings, &good, &stream, &whole);
}

fn judge(settings: Settings, good: &[u8], stream: &[u8], run: &Run) {
    if !settings.with_keys {
        assert_eq!(run.outcome, Some(Outcome::Announced(ReplicaId(2))));
        assert_eq!((run.used, run.sent.len()), (0, FRAME_LEN));
        return;
    }
    let is_sealed = settings.seal == Seal::Require;
    let record = if is_sealed { RECORD_OVERHEAD } else { 0 };
    let fields = [SIZE, COMMAND, NONCE, MAC, STATUS];
    let is_same = is_good(good, stream, &[&fields]);
    let verified = Outcome::Verified(ReplicaId(2), is_sealed);
    match settings.conduct {
        Conduct::Strict => assert_eq!(run.outcome == Some(verified), is_same),
        // A body of any length may stand between the frame and the record.
        Conduct::Reference => assert!(!is_same || run.outcome == Some(verified)),
    }
    if is_same {
        assert_eq!(run.used, FRAME_LEN + record);
    }
    // A proof goes to nobody who gave none.
    let is_proven = is_good(
        &good[..FRAME_LEN],
        stream,
        &[&[COMMAND, NONCE, MAC, STATUS]],
    );
    assert!(is_proven || run.sent.len() == FRAME_LEN);
}

//! The handshake with a user's program (RFC 1928 and 1929).

use adit_proto_core::ingress::socks5::{Reply, Socks5, Step};

use crate::input::{Input, pieces};

/// Any split of what a client sends has the same outcome, and nothing behind the request is taken.
pub fn socks5(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let verdict = Verdict {
        required: flags & 1 != 0,
        accepted: flags & 2 != 0,
        reply: REPLIES[usize::from(flags >> 2) % REPLIES.len()],
    };
    let seed = input.byte();
    let stream = input.rest();
    let whole = play(verdict, std::iter::once(stream));
    assert_eq!(whole, play(verdict, pieces(stream, seed)));
    assert_eq!(whole, play(verdict, pieces(stream, 0)));
    judge(verdict, stream, &whole.0, whole.1);
}

#[derive(Clone, Copy)]
struct Verdict {
    required: bool,
    accepted: bool,
    reply: Reply,
}

/// Plays the caller: all steps, and the bytes that were taken.
fn play<'a>(verdict: Verdict, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Step>, usize) {
    let (mut socks, mut steps, mut used) = (Socks5::new(verdict.required), Vec::new(), 0);
    for piece in pieces {
        let mut rest = piece;
        loop {
            let taken = socks.handle_bytes(rest);
            rest = &rest[taken..];
            used += taken;
            let mut is_answered = false;
            while let Some(step) = socks.poll_output() {
                match &step {
                    Step::Authenticate { .. } => {
                        assert_eq!(socks.handle_bytes(rest), 0, "taken while unanswered");
                        socks.authenticated(verdict.accepted);
                        is_answered = true;
                    }
                    Step::Connect(_) => {
                        socks.reply(verdict.reply);
                        is_answered = true;
                    }
                    Step::Send(_) | Step::Fail(_) => {}
                }
                steps.push(step);
            }
            if !is_answered {
                break;
            }
        }
    }
    let is_over = steps
        .iter()
        .any(|s| matches!(s, Step::Connect(_) | Step::Fail(_)));
    if is_over {
        socks.authenticated(true);
        socks.reply(Reply::Succeeded);
        assert_eq!(socks.handle_bytes(&[5, 1, 0]), 0);
        assert_eq!(socks.poll_output(), None);
    }
    (steps, used)
}

fn judge(verdict: Verdict, stream: &[u8], steps: &[Step], used: usize) {
    assert!(used <= stream.len());
    let mut ends = 0;
    for (nth, step) in steps.iter().enumerate() {
        match step {
            Step::Send(bytes) if bytes.len() == 2 => {
                let known = [[5, 0], [5, 2], [5, 0xff], [1, 0], [1, 1]];
                assert!(known.iter().any(|k| k == &bytes[..]), "{bytes:?}");
            }
            Step::Send(bytes) => {
                assert_eq!(bytes.len(), 10);
                assert!(bytes[0] == 5 && bytes[1] <= 8 && bytes[2..] == [0, 1, 0, 0, 0, 0, 0, 0]);
                assert!(nth > 0, "a reply before the method");
            }
            Step::Authenticate { user, password } => {
                assert!(verdict.required && user.len() <= 255 && password.as_bytes().len() <= 255);
            }
            Step::Connect(target) => {
                assert!(!verdict.required || verdict.accepted, "let in unasked");
                assert_ne!(target.port, 0);
                assert_eq!(used, request_end(stream, verdict.required));
                let reply = [5, verdict.reply.code(), 0, 1, 0, 0, 0, 0, 0, 0];
                assert_eq!(
                    steps[nth + 1..],
                    [Step::Send(reply.as_slice().to_vec().into())]
                );
                ends += 1;
            }
            Step::Fail(_) => {
                assert_eq!(nth + 1, steps.len(), "something after the end");
                ends += 1;
            }
        }
    }
    assert!(ends <= 1);
    assert!(
        ends == 1 || used == stream.len(),
        "bytes are left without a reason"
    );
}

/// Where the request ends in a stream that has a good one.
fn request_end(stream: &[u8], with_credentials: bool) -> usize {
    let len_at = |at: usize| usize::from(stream[at]);
    let mut at = 2 + len_at(1);
    if with_credentials {
        at += 2 + len_at(at + 1);
        at += 1 + len_at(at);
    }
    let address_len = match stream[at + 3] {
        1 => 4,
        4 => 16,
        _ => 1 + len_at(at + 4),
    };
    at + 4 + address_len + 2
}

const REPLIES: [Reply; 7] = [
    Reply::Succeeded,
    Reply::GeneralFailure,
    Reply::NotAllowed,
    Reply::NetworkUnreachable,
    Reply::HostUnreachable,
    Reply::ConnectionRefused,
    Reply::TtlExpired,
];

//! Readers that do not read, sockets that take little, and messages of a few bytes.

use std::{thread, time::Duration};

use crate::{
    bed::{
        Bed, Session,
        end::{End, bytes, shown},
        wait::block_on,
    },
    conform, conform_in_turn,
};

/// Sizes of sockets' buffers that hold little beside a session's window.
const SMALL: Option<usize> = Some(64 << 10);
/// As small as the system makes them.
const TINY: Option<usize> = Some(1);

#[test]
fn who_does_not_read_holds_up_nobody_else_and_loses_nothing() {
    conform_in_turn(|bed| {
        bed.begin();
        let all = bytes(3, 48 << 20);
        let target = bed.target("target", SMALL);
        let mut up = bed.open_with("up", &target, SMALL);
        let mut down = bed.open_with("down", &target, SMALL);
        for writer in [&mut up.user, &mut down.target] {
            let taken = writer.pour(&all, Duration::from_millis(300));
            // A window, and what the system keeps for sockets that are not read: 32 MiB on some machines.
            assert!(taken < 44 << 20, "{taken} bytes taken");
            writer.left = all[taken..].to_vec();
        }
        let mut s = bed.open("beside", &target);
        for _ in 0..100 {
            s.user.stream_send(b"ping");
            assert_eq!(s.target.stream_receive(4), b"ping");
        }
        end(&mut s);
        for (writer, reader) in [
            (&mut up.user, &mut up.target),
            (&mut down.target, &mut down.user),
        ] {
            let left = std::mem::take(&mut writer.left);
            thread::scope(|scope| {
                scope.spawn(|| {
                    writer.stream_send(&left);
                    writer.finish();
                });
                assert!(reader.receive_rest() == all, "all arrives");
            });
        }
        up.target.finish();
        down.user.finish();
        up.user.receive_rest();
        down.target.receive_rest();
    });
}

#[test]
fn a_session_whose_user_never_reads_can_be_ended() {
    conform(|bed| {
        bed.begin();
        let target = bed.target("target", SMALL);
        let mut s = bed.open_with("s", &target, SMALL);
        s.target
            .pour(&bytes(4, 16 << 20), Duration::from_millis(200));
        assert!(block_on(bed.gateway().kill(s.id)).unwrap());
        s.user.receive_reset();
        s.target.receive_reset();
    });
}

#[test]
fn sockets_that_take_a_few_bytes_at_a_time_carry_everything() {
    conform_in_turn(|bed| {
        bed.begin();
        let target = bed.target("target", TINY);
        let mut s = bed.open_with("s", &target, TINY);
        let (up, down) = (bytes(5, 300_000), bytes(6, 300_000));
        let pairs = [(&s.user, &s.target, &up), (&s.target, &s.user, &down)];
        thread::scope(|scope| {
            for (writer, reader, bytes) in pairs {
                let mut writer = writer.duplicate();
                scope.spawn(move || {
                    writer.stream_send(bytes);
                    writer.finish_quietly();
                });
                let mut reader = reader.duplicate();
                scope.spawn(move || {
                    let read = reader.trickle(700);
                    assert_eq!(shown(&read), shown(bytes));
                });
            }
        });
        s.user.receive_rest();
        s.target.receive_rest();
    });
}

#[test]
fn very_many_small_messages_arrive_in_order() {
    conform_in_turn(|bed| {
        bed.begin();
        let target = bed.target("target", None);
        let mut s = bed.open("s", &target);
        let all = bytes(7, 140_000);
        thread::scope(|scope| {
            let mut user = s.user.duplicate();
            let all = &all;
            scope.spawn(move || {
                for message in all.chunks(7) {
                    user.stream_send(message);
                }
            });
            assert!(s.target.receive(all.len()) == *all);
        });
        end(&mut s);
    });
}

#[test]
fn many_questions_have_many_answers() {
    conform(|bed: &mut Bed| {
        bed.begin();
        let target = bed.target("target", None);
        let mut s = bed.open("s", &target);
        for n in 0..500_u32 {
            s.user.stream_send(&n.to_le_bytes());
            assert_eq!(s.target.stream_receive(4), n.to_le_bytes());
            s.target.stream_send(&n.to_be_bytes());
            assert_eq!(s.user.stream_receive(4), n.to_be_bytes());
        }
        end(&mut s);
    });
}

fn end(s: &mut Session) {
    let finish = |one: &mut End, other: &mut End| {
        one.finish();
        other.receive_rest();
    };
    finish(&mut s.user, &mut s.target);
    finish(&mut s.target, &mut s.user);
}

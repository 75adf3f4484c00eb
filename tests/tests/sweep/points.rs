//! Every point at which a signal comes.

use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::KILL;

const OTHERS: [i32; 3] = [15, 2, 1];

/// Side by side: most of this is waiting for the engine.
pub(crate) const AT_ONCE: usize = 3;

/// Every point: the number of a call, and the signal that comes there.
fn points(calls: RangeInclusive<usize>) -> Vec<(u32, i32)> {
    let all = std::env::var_os("BOTTLE_SWEEP").is_some_and(|value| value == "all");
    let [first, last] =
        [*calls.start(), *calls.end()].map(|call| u32::try_from(call).expect("few"));
    let signals = |call: u32| -> Vec<i32> {
        let other = OTHERS[call as usize % OTHERS.len()];
        if all {
            [&[KILL], &OTHERS[..]].concat()
        } else {
            vec![KILL, other]
        }
    };
    (first..=last)
        .flat_map(|call| signals(call).into_iter().map(move |signal| (call, signal)))
        .collect()
}

/// Runs `at_point` at each, some side by side, and says how many recovered.
pub(crate) fn sweep(what: &str, calls: usize, at_point: &(dyn Fn(u32, i32) + Sync)) {
    sweep_part(what, 1..=calls, AT_ONCE, at_point);
}

/// The same for some of the calls, so many side by side.
pub(crate) fn sweep_part(
    what: &str,
    calls: RangeInclusive<usize>,
    at_once: usize,
    at_point: &(dyn Fn(u32, i32) + Sync),
) {
    assert!(!calls.is_empty(), "{what}: no calls of the engine");
    let points = points(calls);
    let next = Mutex::new(points.iter());
    let recovered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let point = next.lock().ok().and_then(|mut next| next.next());
                    let Some((call, signal)) = point else { break };
                    at_point(*call, *signal);
                    recovered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    let recovered = recovered.into_inner();
    println!("{what}: {} points, {recovered} recovered", points.len());
    assert_eq!(recovered, points.len(), "{what}");
}

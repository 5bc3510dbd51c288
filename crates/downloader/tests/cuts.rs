//! Wherever the connection is cut, in headers or body, and however often: the bytes are right.

mod support;

use proptest::prelude::*;
use support::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_is_survived(
        len in 0usize..150_000,
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
        tag in prop_oneof![Just("ETag: \"v1\""), Just("ETag: W/\"v1\""), Just("Last-Modified: Sat, 21 Nov 2026 00:00:00 GMT"), Just("")],
        declared: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let data = noise(len);
            let served = data.clone();
            let server = Server::start(move |n, request| {
                let reply = object(request, &served, tag);
                match cuts.get(n) {
                    Some(cut) => { let at = cut.index(reply.bytes.len()); reply.cut(at) }
                    None => reply,
                }
            })
            .await;
            let mut transfer = Transfer::of(&data);
            transfer.size = declared.then_some(len as u64);
            transfer.fetch(&server.url()).await.unwrap();
            assert_eq!(transfer.verified().await, data);
        });
    }
}

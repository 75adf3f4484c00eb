//! What goes back to git: a stream from a child, or a few words git shows its user.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc::Receiver;

/// A body: known whole, or read from a child as it comes.
pub(super) enum Answer {
    Whole(Option<Bytes>),
    Stream(Receiver<std::io::Result<Bytes>>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(chunks) => chunks
                .poll_recv(context)
                .map(|chunk| chunk.map(|c| c.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

pub(super) type Reply = Result<Response<Answer>, Infallible>;

/// A plain text, for what is no git.
pub(super) fn text(status: StatusCode, text: &str) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(Bytes::from(format!("{text}\n")))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// An advertisement that is an error: with any other status git would show nothing but its number.
pub(super) fn error_for_git(service: &str, message: &str) -> Response<Answer> {
    let mut body = packet(&format!("# service={service}\n"));
    body.push_str("0000");
    body.push_str(&packet(&format!("ERR {message}\n")));
    let mut response = Response::new(Answer::Whole(Some(Bytes::from(body))));
    let kind = HeaderValue::from_str(&format!("application/x-{service}-advertisement"));
    if let Ok(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A pkt-line. A text that does not fit is cut.
fn packet(text: &str) -> String {
    const MOST: usize = 4000;
    let mut end = text.len().min(MOST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{:04x}{}", end + 4, &text[..end])
}

#[cfg(test)]
mod tests {
    use super::packet;

    #[test]
    fn the_length_of_a_packet_counts_itself() {
        assert_eq!(packet("a\n"), "0006a\n");
        assert_eq!(packet(&"é".repeat(4000)).len(), 4004);
    }
}

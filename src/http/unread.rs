//! Requests whose body is not read: their response announces that the connection closes, and the client can read it.
//!
//! hyper keeps such a connection only if the rest of the body has arrived already; else it closes it, after a response that
//! promised to keep it, and the kernel resets a connection that is closed with unread bytes. A client could lose the response,
//! or the next request that it sends on a connection which it believes open.
//!
//! Reading the body before the response would not replace this: a slow or large upload would delay the response, reading it
//! invites the client of `Expect: 100-continue` to send it, and hyper's own errors (too many headers) pass no handler.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderValue, Version, header},
    response::Response,
};
use http_body::{Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// Time in which a client that keeps sending may notice that the connection is closed; then it is reset.
const LINGER: Duration = Duration::from_secs(2);

/// A flag: the latest request of an HTTP/1 connection has a body that is not read to its end. Never set with HTTP/2, where a
/// request ends without its connection.
#[derive(Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Watches the body of an incoming request.
    pub(super) fn watch<B>(&self, request: axum::http::Request<B>) -> Request
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let request = request.map(Body::new);
        if request.version() >= Version::HTTP_2 || request.body().is_end_stream() {
            return request;
        }
        self.0.store(true, Ordering::Relaxed);
        request.map(|body| {
            Body::new(Watched {
                body,
                unread: self.clone(),
            })
        })
    }

    /// Announces in the response that the connection closes, where the body was not read.
    pub(super) fn close_if_left(&self, mut response: Response) -> Response {
        if self.is_left() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Watched {
    body: Body,
    unread: Unread,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        // A reader that knows the length stops before the end is reported.
        if frame.is_none() || self.body.is_end_stream() {
            self.unread.0.store(false, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that, when it is shut down while its client still sends, keeps reading until the client closes, too
/// (RFC 9112, section 9.6).
pub(super) struct Lingering {
    stream: TcpStream,
    unread: Unread,
    until: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    pub(super) fn new(stream: TcpStream, unread: Unread) -> Self {
        Self {
            stream,
            unread,
            until: None,
        }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            stream,
            unread,
            until,
        } = &mut *self;
        let until = match until {
            Some(until) => until,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                until.insert(Box::pin(sleep(LINGER)))
            }
        };
        while until.as_mut().poll(context).is_pending() {
            let mut ignored = [0; 4096];
            let mut ignored = ReadBuf::new(&mut ignored);
            let read = match Pin::new(&mut *stream).poll_read(context, &mut ignored) {
                Poll::Ready(read) => read,
                Poll::Pending if unread.is_left() => return Poll::Pending,
                // The client sends nothing.
                Poll::Pending => break,
            };
            if read.is_err() || ignored.filled().is_empty() {
                break;
            }
            // For example the rest of too many headers.
            unread.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

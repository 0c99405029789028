//! A service whose liveness is checked during the whole test.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};

use super::{LIMIT, Service, service::client};

/// The service, with the results of the checks. When it is dropped, every check must have passed, and nothing in it may
/// have panicked.
pub(crate) struct MonitoredService {
    service: Service,
    asking: JoinHandle<()>,
    /// Responses other than 200.
    otherwise: Arc<Mutex<Vec<String>>>,
}

impl MonitoredService {
    pub(crate) async fn start<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Self::over(Service::start(&[], pairs).await).await
    }

    pub(crate) async fn over(service: Service) -> Self {
        assert_eq!(service.get("/healthz").await.status(), 200);
        let otherwise = Arc::<Mutex<Vec<String>>>::default();
        let (url, found) = (service.url("/healthz"), otherwise.clone());
        let asking = tokio::spawn(async move {
            let client = client();
            loop {
                let answer = client.get(&url).timeout(LIMIT).send().await;
                let other = match answer {
                    Ok(answer) if answer.status() == 200 => None,
                    Ok(answer) => Some(answer.status().to_string()),
                    Err(error) => Some(format!("{error:?}")),
                };
                found.lock().expect("no panic under the lock").extend(other);
                sleep(Duration::from_millis(100)).await;
            }
        });
        Self {
            service,
            asking,
            otherwise,
        }
    }
}

impl Deref for MonitoredService {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl DerefMut for MonitoredService {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.service
    }
}

impl Drop for MonitoredService {
    fn drop(&mut self) {
        self.asking.abort();
        if std::thread::panicking() {
            println!("{}", self.service.log());
            return;
        }
        let otherwise = self.otherwise.lock().expect("no panic under the lock");
        assert!(otherwise.is_empty(), "/healthz: {otherwise:?}");
        let log = self.service.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

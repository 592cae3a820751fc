//! The client of the container runtime: CRI v1 over its unix socket.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// The generated messages of CRI.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// The generated messages of containerd's events.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]
mod containerd {
    tonic::include_proto!("containerd.services.events.v1");
}

use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;

/// How long the runtime may take over a call that starts or stops something.
const CALL_WAIT_MAX: Duration = Duration::from_secs(120);
/// How long it may take to pull an image.
const PULL_WAIT_MAX: Duration = Duration::from_secs(30 * 60);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A call that the runtime did not carry out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime refused or cannot be reached.
    #[error("{call}: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// What the runtime said.
        message: String,
        /// Its code.
        code: Code,
    },
    /// No answer in time.
    #[error("{call}: no answer in time")]
    Late {
        /// The call.
        call: &'static str,
    },
    /// The answer lacks a part that it must have.
    #[error("{call}: the answer has no {part}")]
    Incomplete {
        /// The call.
        call: &'static str,
        /// What is missing.
        part: &'static str,
    },
}

impl RuntimeError {
    /// Whether the object is unknown to the runtime.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            RuntimeError::Refused {
                code: Code::NotFound,
                ..
            }
        )
    }

    /// Whether the runtime lacks the call.
    pub fn is_unimplemented(&self) -> bool {
        matches!(
            self,
            RuntimeError::Refused {
                code: Code::Unimplemented,
                ..
            }
        )
    }

    /// Whether the command of an exec took too long.
    pub fn is_deadline(&self) -> bool {
        matches!(
            self,
            RuntimeError::Refused {
                code: Code::DeadlineExceeded,
                ..
            } | RuntimeError::Late { .. }
        )
    }
}

fn refused(call: &'static str, s: &Status) -> RuntimeError {
    RuntimeError::Refused {
        call,
        message: s.message().to_owned(),
        code: s.code(),
    }
}

async fn within<T>(
    call: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, RuntimeError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(r)) => Ok(r.into_inner()),
        Ok(Err(s)) => Err(refused(call, &s)),
        Err(_) => Err(RuntimeError::Late { call }),
    }
}

/// The runtime. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    events: containerd::events_client::EventsClient<Channel>,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $client:ident $name:ident($request:ident) -> $answer:ident;)*) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// The runtime's refusal, or no answer in time.
        pub async fn $name(&self, request: v1::$request) -> Result<v1::$answer, RuntimeError> {
            // Boxed, as the requests are large and lie in the futures of all callers otherwise.
            let mut client = self.$client.clone();
            let answer = Box::pin(client.$name(request));
            within(stringify!($request), CALL_WAIT_MAX, answer).await
        })*
    };
}

impl Runtime {
    /// A client that connects at its first call, and again after each loss.
    ///
    /// # Panics
    /// If the path cannot be part of a URI.
    pub fn new(socket: &Path) -> Runtime {
        let uri = format!("unix:{}", socket.display());
        let channel = Endpoint::from_shared(uri)
            .expect("a socket's path is a valid URI")
            .connect_timeout(CONNECT_WAIT_MAX)
            .connect_lazy();
        Runtime {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            events: containerd::events_client::EventsClient::new(channel),
        }
    }

    calls! {
        /// The runtime's name and version.
        runtime version(VersionRequest) -> VersionResponse;
        /// Whether the runtime and its network are ready.
        runtime status(StatusRequest) -> StatusResponse;
        /// Makes and starts a sandbox.
        runtime run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
        /// Stops a sandbox and gives back its network.
        runtime stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
        /// Removes a sandbox with its containers.
        runtime remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
        /// The state and address of a sandbox.
        runtime pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
        /// All sandboxes.
        runtime list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
        /// Makes a container.
        runtime create_container(CreateContainerRequest) -> CreateContainerResponse;
        /// Starts a container.
        runtime start_container(StartContainerRequest) -> StartContainerResponse;
        /// Removes a container.
        runtime remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
        /// All containers.
        runtime list_containers(ListContainersRequest) -> ListContainersResponse;
        /// The state of a container.
        runtime container_status(ContainerStatusRequest) -> ContainerStatusResponse;
        /// Has a container's log opened again after it was moved.
        runtime reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        /// A URL that serves one exec.
        runtime exec(ExecRequest) -> ExecResponse;
        /// A URL that serves one attach.
        runtime attach(AttachRequest) -> AttachResponse;
        /// A URL that serves one port-forward.
        runtime port_forward(PortForwardRequest) -> PortForwardResponse;
        /// Usage of all containers.
        runtime list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        /// All images.
        images list_images(ListImagesRequest) -> ListImagesResponse;
        /// One image, if it is there.
        images image_status(ImageStatusRequest) -> ImageStatusResponse;
        /// Removes an image.
        images remove_image(RemoveImageRequest) -> RemoveImageResponse;
        /// Usage of the file system of the images.
        images image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }

    /// Stops a container; after its grace it is killed.
    ///
    /// # Errors
    /// The runtime's refusal, or no answer in time.
    pub async fn stop_container(
        &self,
        container_id: String,
        timeout: i64,
    ) -> Result<(), RuntimeError> {
        let limit = CALL_WAIT_MAX + Duration::from_secs(u64::try_from(timeout).unwrap_or(0));
        let request = v1::StopContainerRequest {
            container_id,
            timeout,
        };
        within(
            "StopContainerRequest",
            limit,
            self.runtime.clone().stop_container(request),
        )
        .await
        .map(drop)
    }

    /// Runs a command in a container to its end.
    ///
    /// # Errors
    /// The runtime's refusal, or no answer in time.
    pub async fn exec_sync(
        &self,
        container_id: &str,
        cmd: &[String],
        limit: Duration,
    ) -> Result<v1::ExecSyncResponse, RuntimeError> {
        let timeout = i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX);
        let request = v1::ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: cmd.to_vec(),
            timeout,
        };
        within(
            "ExecSyncRequest",
            limit + CONNECT_WAIT_MAX,
            self.runtime.clone().exec_sync(request),
        )
        .await
    }

    /// Pulls an image; returns the reference to create containers from.
    ///
    /// # Errors
    /// The runtime's refusal, or no answer in time.
    pub async fn pull_image(
        &self,
        image: &str,
        auth: Option<v1::AuthConfig>,
    ) -> Result<String, RuntimeError> {
        let image = Some(v1::ImageSpec {
            image: image.to_owned(),
            ..v1::ImageSpec::default()
        });
        let request = v1::PullImageRequest {
            image,
            auth,
            sandbox_config: None,
        };
        let answer = within(
            "PullImageRequest",
            PULL_WAIT_MAX,
            self.images.clone().pull_image(request),
        )
        .await?;
        Ok(answer.image_ref)
    }

    /// The image of this name or id, if it is there.
    ///
    /// # Errors
    /// The runtime's refusal, or no answer in time.
    pub async fn image(&self, image: &str) -> Result<Option<v1::Image>, RuntimeError> {
        let image = Some(v1::ImageSpec {
            image: image.to_owned(),
            ..v1::ImageSpec::default()
        });
        Ok(self
            .image_status(v1::ImageStatusRequest {
                image,
                verbose: false,
            })
            .await?
            .image)
    }

    /// Calls back whenever something may have changed, until the stream of events ends. Containerd's own events come
    /// first: its versions before 1.7 have no others.
    ///
    /// # Errors
    /// The runtime has neither kind of event stream, or it broke.
    pub async fn follow_events(&self, mut changed: impl FnMut()) -> Result<(), RuntimeError> {
        let call = "Subscribe";
        let filters = vec![r#"namespace==k8s.io,topic~="/tasks/(start|exit|oom)""#.to_owned()];
        let native = self
            .events
            .clone()
            .subscribe(containerd::SubscribeRequest { filters })
            .await;
        match native {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                changed();
                while stream
                    .message()
                    .await
                    .map_err(|s| refused(call, &s))?
                    .is_some()
                {
                    changed();
                }
            }
            Err(s) if s.code() == Code::Unimplemented => {
                let call = "GetContainerEvents";
                let stream = self
                    .runtime
                    .clone()
                    .get_container_events(v1::GetEventsRequest {})
                    .await;
                let mut stream = stream.map_err(|s| refused(call, &s))?.into_inner();
                changed();
                while stream
                    .message()
                    .await
                    .map_err(|s| refused(call, &s))?
                    .is_some()
                {
                    changed();
                }
            }
            Err(s) => return Err(refused(call, &s)),
        }
        Ok(())
    }
}

module curfew/interop

go 1.24.0

require (
	github.com/fullstorydev/grpchan v1.1.2
	github.com/jhump/grpctunnel v0.3.0
	google.golang.org/grpc v1.75.1
)

require (
	github.com/golang/protobuf v1.5.4 // indirect
	golang.org/x/net v0.41.0 // indirect
	golang.org/x/sys v0.33.0 // indirect
	golang.org/x/text v0.26.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20250707201910-8d1bb00bc6a7 // indirect
	google.golang.org/protobuf v1.36.6 // indirect
)

package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/fullstorydev/grpchan/grpchantesting"
	"github.com/jhump/grpctunnel"
	"github.com/jhump/grpctunnel/tunnelpb"
	"google.golang.org/grpc"
)

// A handler that works on for a while, whether or not its caller is still there, and notices when it is told.
type slow struct {
	grpchantesting.TestServer
	started, told, completed atomic.Int64
}

func (s *slow) Unary(ctx context.Context, request *grpchantesting.Message) (*grpchantesting.Message, error) {
	s.started.Add(1)
	timer := time.NewTimer(time.Duration(request.DelayMillis) * time.Millisecond)
	select {
	case <-ctx.Done():
		s.told.Add(1)
		<-timer.C
	case <-timer.C:
	}
	s.completed.Add(1)
	return &grpchantesting.Message{}, nil
}

// CURFEW_ROLE=steps: a tunnel server with the slow method. Without CURFEW_ADDRESS it is a network server and prints
// "port N"; with it, it dials, and dials again whenever its tunnel has ended. For each line on its standard input it
// prints one line of counts.
func steps() error {
	service := &slow{}
	if os.Getenv("CURFEW_ADDRESS") != "" {
		go func() {
			for {
				dialAndServe(service)
				time.Sleep(20 * time.Millisecond)
			}
		}()
	} else {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		handler := grpctunnel.NewTunnelServiceHandler(grpctunnel.TunnelServiceHandlerOptions{})
		grpchantesting.RegisterTestServiceServer(handler, service)
		server := grpc.NewServer()
		tunnelpb.RegisterTunnelServiceServer(server, handler.Service())
		go func() { _ = server.Serve(listener) }()
		fmt.Printf("port %d\n", listener.Addr().(*net.TCPAddr).Port)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		counts, _ := json.Marshal(map[string]int64{
			"started": service.started.Load(), "told": service.told.Load(),
			"completed": service.completed.Load(), "tasks": int64(runtime.NumGoroutine()),
		})
		fmt.Printf("counts %s\n", counts)
	}
	return nil
}

func dialAndServe(service *slow) {
	connection, err := dial()
	if err != nil {
		return
	}
	defer connection.Close()
	server := grpctunnel.NewReverseTunnelServer(tunnelpb.NewTunnelServiceClient(connection))
	grpchantesting.RegisterTestServiceServer(server, service)
	_, _ = server.Serve(context.Background())
}

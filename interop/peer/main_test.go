// The Go end of the interoperability runs: one binary, one role per process.
//
//	CURFEW_ROLE=serve   a network server: offers the test service in forward tunnels, runs until stdin closes
//	CURFEW_ROLE=agent   a network client: offers the test service in a reverse tunnel, runs until stdin closes
//	CURFEW_ROLE=call    a network client: opens a forward tunnel and runs the cases over it
//	CURFEW_ROLE=invite  a network server: waits for a reverse tunnel and runs the cases over it
//	CURFEW_ROLE=rates   a network client: measures how fast calls go over a forward tunnel
//	CURFEW_ROLE=bench-serve, bench-call   the two ends of the benchmark: bench_test.go
//	CURFEW_ROLE=steps   a network server with one slow method, which counts what callers that leave do to it
//
// CURFEW_ADDRESS is the other end, CURFEW_FLOW_CONTROL=off switches flow control off at this end. A server prints
// "port N" on a line of its own. The cases are Go tests, so their results are those of `-test.v`.
package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fullstorydev/grpchan/grpchantesting"
	"github.com/jhump/grpctunnel"
	"github.com/jhump/grpctunnel/tunnelpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const nestingKey = "nesting-level"

// What a caller asks a handler for: to run the cases over the reverse tunnel that it has opened inside the tunnel.
const nestedMethod = "/curfew.interop.Nested/Run"

func flowControlOff() bool { return os.Getenv("CURFEW_FLOW_CONTROL") == "off" }

func tunnelOptions() []grpctunnel.TunnelOption {
	if flowControlOff() {
		return []grpctunnel.TunnelOption{grpctunnel.WithDisableFlowControl()}
	}
	return nil
}

// A handler whose tunnels can carry tunnels: it offers itself besides the test service.
func newHandler() *grpctunnel.TunnelServiceHandler {
	handler := grpctunnel.NewTunnelServiceHandler(grpctunnel.TunnelServiceHandlerOptions{
		AffinityKey: func(tunnel grpctunnel.TunnelChannel) any {
			incoming, _ := metadata.FromIncomingContext(tunnel.Context())
			if values := incoming.Get(nestingKey); len(values) > 0 {
				return values[0]
			}
			return ""
		},
		DisableFlowControl: flowControlOff(),
	})
	grpchantesting.RegisterTestServiceServer(handler, &grpchantesting.TestServer{})
	tunnelpb.RegisterTunnelServiceServer(handler, handler.Service())
	registerNested(handler, handler)
	return handler
}

func registerNested(at grpc.ServiceRegistrar, handler *grpctunnel.TunnelServiceHandler) {
	at.RegisterService(&grpc.ServiceDesc{
		ServiceName: "curfew.interop.Nested",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Run", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := &grpchantesting.Message{}
			if err := decode(request); err != nil {
				return nil, err
			}
			return runNested(ctx, handler, string(request.Payload))
		}}},
	}, struct{}{})
}

// The test that a role which serves runs in, for as long as it serves.
var serving *testing.T

// Runs the cases as tests of this process, which prints them when it stops; the answer says whether they passed.
func runNested(ctx context.Context, handler *grpctunnel.TunnelServiceHandler, key string) (*grpchantesting.Message, error) {
	channel := handler.KeyAsChannel(key)
	ready, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := channel.WaitForReady(ready); err != nil {
		return nil, err
	}
	if !serving.Run("nested reverse", func(t *testing.T) { cases(t, ctx, channel) }) {
		return nil, status.Error(codes.Internal, "cases over the nested reverse tunnel failed")
	}
	return &grpchantesting.Message{Payload: []byte("[]")}, nil
}

type nestedResult struct {
	Name  string
	Error string
}

// Opens a reverse tunnel inside a tunnel, and has the other end run the cases over it.
func nestedReverse(t *testing.T, ctx context.Context, channel grpc.ClientConnInterface) {
	server := grpctunnel.NewReverseTunnelServer(tunnelpb.NewTunnelServiceClient(channel), tunnelOptions()...)
	grpchantesting.RegisterTestServiceServer(server, &grpchantesting.TestServer{})
	served := make(chan error, 1)
	go func() {
		started, err := server.Serve(metadata.AppendToOutgoingContext(ctx, nestingKey, "reverse"))
		if err == nil && !started {
			err = errors.New("the reverse tunnel never started")
		}
		served <- err
	}()
	answer := &grpchantesting.Message{}
	if err := channel.Invoke(ctx, nestedMethod, &grpchantesting.Message{Payload: []byte("reverse")}, answer); err != nil {
		t.Error(err)
	}
	var results []nestedResult
	if err := json.Unmarshal(answer.Payload, &results); err != nil {
		t.Error("the answer is no list of results:", err)
	}
	for _, result := range results {
		t.Run(result.Name, func(t *testing.T) {
			if result.Error != "" {
				t.Error(result.Error)
			}
		})
	}
	server.Stop()
	if err := <-served; err != nil {
		t.Error("serving ended:", err)
	}
}

// Fails when goroutines are left that were not there before.
func leavesNothing(t *testing.T, before int) {
	t.Run("nothing is left", func(t *testing.T) {
		for end := time.Now().Add(15 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d goroutines, and %d before", runtime.NumGoroutine(), before)
			}
		}
	})
}

func listen(handler *grpctunnel.TunnelServiceHandler) (*grpc.Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	tunnelpb.RegisterTunnelServiceServer(server, handler.Service())
	go func() {
		if err := server.Serve(listener); err != nil {
			fmt.Fprintln(os.Stderr, "the server ended:", err)
		}
	}()
	fmt.Printf("port %d\n", listener.Addr().(*net.TCPAddr).Port)
	return server, nil
}

func dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(os.Getenv("CURFEW_ADDRESS"), grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv("CURFEW_ROLE"); role {
	case "steps":
		err = steps()
	case "rates":
		err = rates()
	case "bench-serve":
		err = benchServe()
	case "bench-call":
		err = benchCall()
	case "serve", "agent", "call", "invite":
		os.Exit(m.Run())
	default:
		err = fmt.Errorf("CURFEW_ROLE is %q; set it to serve, agent, call, invite, rates, steps, bench-serve or bench-call", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A role that serves, until its input closes.
func TestServing(t *testing.T) {
	serving = t
	run := serve
	if os.Getenv("CURFEW_ROLE") == "agent" {
		run = agent
	}
	if err := run(); err != nil {
		t.Error(err)
	}
}

func serve() error {
	server, err := listen(newHandler())
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	server.Stop()
	return nil
}

func agent() error {
	connection, err := dial()
	if err != nil {
		return err
	}
	defer connection.Close()
	handler := newHandler()
	server := grpctunnel.NewReverseTunnelServer(tunnelpb.NewTunnelServiceClient(connection), tunnelOptions()...)
	grpchantesting.RegisterTestServiceServer(server, &grpchantesting.TestServer{})
	tunnelpb.RegisterTunnelServiceServer(server, handler.Service())
	registerNested(server, handler)
	served := make(chan error, 1)
	go func() {
		_, err := server.Serve(context.Background())
		served <- err
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	server.Stop()
	return <-served
}

func TestCases(t *testing.T) {
	switch os.Getenv("CURFEW_ROLE") {
	case "call":
		before := runtime.NumGoroutine() + 1
		connection, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		stub := tunnelpb.NewTunnelServiceClient(connection)
		forward(t, context.Background(), stub, func(ctx context.Context, channel grpctunnel.TunnelChannel) {
			cases(t, ctx, channel)
			t.Run("nested", func(t *testing.T) {
				inner := metadata.AppendToOutgoingContext(ctx, nestingKey, "1")
				forward(t, inner, tunnelpb.NewTunnelServiceClient(channel), func(ctx context.Context, nested grpctunnel.TunnelChannel) {
					cases(t, ctx, nested)
				})
			})
			t.Run("nested reverse", func(t *testing.T) { nestedReverse(t, ctx, channel) })
		})
		connection.Close()
		leavesNothing(t, before)
	case "invite":
		handler := newHandler()
		server, err := listen(handler)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Stop()
		channel := handler.AsChannel()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := channel.WaitForReady(ctx); err != nil {
			t.Fatal("no reverse tunnel came:", err)
		}
		cases(t, context.Background(), channel)
		t.Run("nested", func(t *testing.T) {
			forward(t, context.Background(), tunnelpb.NewTunnelServiceClient(channel), func(ctx context.Context, nested grpctunnel.TunnelChannel) {
				cases(t, ctx, nested)
			})
		})
		t.Run("nested reverse", func(t *testing.T) { nestedReverse(t, context.Background(), channel) })
		for _, tunnel := range handler.AllReverseTunnels() {
			if err := tunnel.Err(); err != nil {
				t.Error("a reverse tunnel ended:", err)
			}
		}
	}
}

func forward(t *testing.T, ctx context.Context, stub tunnelpb.TunnelServiceClient, body func(context.Context, grpctunnel.TunnelChannel)) {
	channel, err := grpctunnel.NewChannel(stub, tunnelOptions()...).Start(ctx)
	if err != nil {
		t.Fatal("the tunnel did not open:", err)
	}
	defer func() {
		channel.Close()
		<-channel.Done()
		if err := channel.Err(); err != nil {
			t.Error("the tunnel ended:", err)
		}
	}()
	body(channel.Context(), channel)
}

func cases(t *testing.T, ctx context.Context, channel grpc.ClientConnInterface) {
	t.Run("kinds", func(t *testing.T) { grpchantesting.RunChannelTestCases(t, channel, true) })
	stub := grpchantesting.NewTestServiceClient(channel)
	t.Run("sizes", func(t *testing.T) { sizes(t, ctx, stub) })
	if os.Getenv("CURFEW_STALL") != "off" {
		t.Run("stalled reader", func(t *testing.T) { stalledReader(t, ctx, stub) })
	}
	t.Run("callers", func(t *testing.T) { callers(t, ctx, stub) })
	t.Run("server deadline", func(t *testing.T) { deadline(t, ctx, stub) })
}

// The last two make messages of exactly one chunk and of exactly one window.
var payloadSizes = []int{0, 1, 16383, 16384, 16385, 65535, 65536, 65537, 100_000, 1 << 20, 5 << 20, 16380, 65532}

func sizes(t *testing.T, ctx context.Context, stub grpchantesting.TestServiceClient) {
	for _, size := range payloadSizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			payload := bytes.Repeat([]byte{7}, size)
			answer, err := stub.Unary(ctx, &grpchantesting.Message{Payload: payload})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(answer.Payload, payload) {
				t.Fatalf("%d bytes came back for %d", len(answer.Payload), size)
			}
		})
	}
}

// How long a handler sleeps while it leaves messages unread: longer than what others then do can take.
const stallMillis = 8_000

// A handler that sleeps with unread messages must not hold up the others.
func stalledReader(t *testing.T, ctx context.Context, stub grpchantesting.TestServiceClient) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	stalled, err := stub.BidiStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 2 {
			if stalled.Send(&grpchantesting.Message{DelayMillis: stallMillis, Payload: make([]byte, 40_000)}) != nil {
				return
			}
		}
	}()
	var answered atomic.Bool
	go func() {
		if _, err := stalled.Recv(); err == nil {
			answered.Store(true)
		}
	}()
	var group sync.WaitGroup
	failures := make(chan error, 10)
	for range 10 {
		group.Add(1)
		go func() {
			defer group.Done()
			stream, err := stub.ClientStream(ctx)
			for i := 0; err == nil && i < 20; i++ {
				err = stream.Send(&grpchantesting.Message{Payload: make([]byte, 20_000)})
			}
			if err == nil {
				_, err = stream.CloseAndRecv()
			}
			if err != nil {
				failures <- err
			}
		}()
	}
	group.Wait()
	if answered.Load() {
		t.Error("the others finished only after the stalled handler had gone on")
	}
	close(failures)
	for err := range failures {
		t.Error(err)
	}
}

func callers(t *testing.T, ctx context.Context, stub grpchantesting.TestServiceClient) {
	var group sync.WaitGroup
	failures := make(chan error, 10)
	for range 10 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 200 {
				if _, err := stub.Unary(ctx, &grpchantesting.Message{}); err != nil {
					failures <- err
					return
				}
			}
		}()
	}
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
}

func deadline(t *testing.T, ctx context.Context, stub grpchantesting.TestServiceClient) {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err := stub.Unary(ctx, &grpchantesting.Message{DelayMillis: 2_000})
	if code := status.Code(err); code != codes.DeadlineExceeded && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

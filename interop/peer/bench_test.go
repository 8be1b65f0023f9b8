package peer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fullstorydev/grpchan/grpchantesting"
	"github.com/jhump/grpctunnel"
	"github.com/jhump/grpctunnel/tunnelpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// What the benchmark of this library has in each of its calls, in Go: three entries of metadata of which one is the
// call's own, a deadline at both ends, three response headers. The message has its payload in the field that a
// Curfew end writes by hand.
const (
	benchMethod  = "/curfew.bench.Bench/EchoWrapped"
	benchBytes   = 100
	benchTimeout = 20 * time.Second
	requestKey   = "x-request-id"
)

var (
	benchRequest = [][2]string{{"x-tenant", "acme-industries"}, {"x-caller", "benchmark/1.0 (loopback)"}}
	benchAnswer  = [][2]string{{"x-region", "eu-central-1"}, {"x-version", "2026.11.1"}}
)

// The one value of each key that was expected, and the name of the call.
func benchCheck(got metadata.MD, expected [][2]string) (string, error) {
	for _, entry := range expected {
		if values := got.Get(entry[0]); len(values) != 1 || values[0] != entry[1] {
			return "", fmt.Errorf("%s came as %q, and should be %q", entry[0], values, entry[1])
		}
	}
	if values := got.Get(requestKey); len(values) == 1 && strings.HasPrefix(values[0], "req-") {
		return values[0], nil
	}
	return "", fmt.Errorf("%s is missing: %v", requestKey, got)
}

func benchEcho(ctx context.Context, request *grpchantesting.Message) (*grpchantesting.Message, error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	id, err := benchCheck(incoming, benchRequest)
	if err != nil {
		return nil, err
	}
	deadline, ok := ctx.Deadline()
	if left := time.Until(deadline); !ok || left <= 0 || left > benchTimeout+time.Second {
		return nil, fmt.Errorf("a call came with %v until its deadline", left)
	}
	headers := metadata.Pairs(benchAnswer[0][0], benchAnswer[0][1], benchAnswer[1][0], benchAnswer[1][1], requestKey, id)
	if err := grpc.SendHeader(ctx, headers); err != nil {
		return nil, err
	}
	return &grpchantesting.Message{Payload: request.Payload}, nil
}

func cpuMicros() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return (usage.Utime.Nano() + usage.Stime.Nano()) / 1000
}

// CURFEW_ROLE=bench-serve: a network server whose forward tunnels echo. For the Nth line on its standard input it prints
// "N cpu M": the microseconds of processor time that it has had.
func benchServe() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	handler := grpctunnel.NewTunnelServiceHandler(grpctunnel.TunnelServiceHandlerOptions{})
	handler.RegisterService(&grpc.ServiceDesc{
		ServiceName: "curfew.bench.Bench",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "EchoWrapped", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := &grpchantesting.Message{}
			if err := decode(request); err != nil {
				return nil, err
			}
			return benchEcho(ctx, request)
		}}},
	}, struct{}{})
	server := grpc.NewServer()
	tunnelpb.RegisterTunnelServiceServer(server, handler.Service())
	go func() { _ = server.Serve(listener) }()
	fmt.Printf("port %d\n", listener.Addr().(*net.TCPAddr).Port)
	lines := bufio.NewScanner(os.Stdin)
	for count := 1; lines.Scan(); count++ {
		fmt.Printf("%d cpu %d\n", count, cpuMicros())
	}
	server.Stop()
	return nil
}

// CURFEW_ROLE=bench-call: a network client with a forward tunnel to CURFEW_ADDRESS. For the Nth line on its standard
// input, {"callers":64,"millis":1000}, that many callers make calls for that long, and it prints "N closed {…}".
func benchCall() error {
	connection, err := dial()
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := grpctunnel.NewChannel(tunnelpb.NewTunnelServiceClient(connection)).Start(context.Background())
	if err != nil {
		return err
	}
	defer channel.Close()
	var numbers atomic.Uint32
	lines := bufio.NewScanner(os.Stdin)
	for count := 1; lines.Scan(); count++ {
		var load struct{ Callers, Millis int }
		if err := json.Unmarshal(lines.Bytes(), &load); err != nil {
			return err
		}
		first, cpu, begin := numbers.Load(), cpuMicros(), time.Now()
		end := begin.Add(time.Duration(load.Millis) * time.Millisecond)
		var group sync.WaitGroup
		var failed atomic.Value
		for range load.Callers {
			group.Add(1)
			go func() {
				defer group.Done()
				for time.Now().Before(end) && failed.Load() == nil {
					if err := benchOne(channel, numbers.Add(1)); err != nil {
						failed.Store(err.Error())
					}
				}
			}()
		}
		group.Wait()
		if problem := failed.Load(); problem != nil {
			return fmt.Errorf("a call failed: %v", problem)
		}
		calls := numbers.Load() - first
		result, _ := json.Marshal(map[string]float64{
			"calls":          float64(calls),
			"callsPerSecond": float64(calls) / time.Since(begin).Seconds(),
			"cpuMicros":      float64(cpuMicros() - cpu),
		})
		fmt.Printf("%d closed %s\n", count, result)
	}
	return nil
}

func benchOne(channel grpc.ClientConnInterface, number uint32) error {
	id := fmt.Sprintf("req-%08x", number)
	ctx, cancel := context.WithTimeout(context.Background(), benchTimeout)
	defer cancel()
	// The library keeps a deadline to itself; what it understands as a server is this header.
	ctx = metadata.AppendToOutgoingContext(ctx, benchRequest[0][0], benchRequest[0][1], benchRequest[1][0], benchRequest[1][1],
		requestKey, id, "grpc-timeout", fmt.Sprintf("%dm", benchTimeout.Milliseconds()))
	payload := bytes.Repeat([]byte{'x'}, benchBytes)
	binary.BigEndian.PutUint32(payload, number)
	answer := &grpchantesting.Message{}
	var headers metadata.MD
	if err := channel.Invoke(ctx, benchMethod, &grpchantesting.Message{Payload: payload}, answer, grpc.Header(&headers)); err != nil {
		return err
	}
	if named, err := benchCheck(headers, benchAnswer); err != nil {
		return err
	} else if named != id {
		return fmt.Errorf("the answer to %s came to %s", named, id)
	}
	if !bytes.Equal(answer.Payload, payload) {
		return fmt.Errorf("call %d got another answer back than its request", number)
	}
	return nil
}

package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fullstorydev/grpchan/grpchantesting"
	"github.com/jhump/grpctunnel"
	"github.com/jhump/grpctunnel/tunnelpb"
)

const rateSeconds = 2

// CURFEW_ROLE=rates: a network client that measures how fast calls go over a forward tunnel to CURFEW_ADDRESS.
func rates() error {
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
	stub := grpchantesting.NewTestServiceClient(channel)
	unary := func(callers, size int) (float64, error) {
		request := &grpchantesting.Message{Payload: make([]byte, size)}
		return measure(callers, func() (int, error) {
			_, err := stub.Unary(context.Background(), request)
			return 1, err
		})
	}
	results := map[string]float64{}
	for _, each := range []struct{ callers, size int }{{1, 100}, {16, 100}, {16, 10_000}, {16, 100_000}} {
		rate, err := unary(each.callers, each.size)
		if err != nil {
			return err
		}
		results[fmt.Sprintf("unary %d %d", each.callers, each.size)] = rate
	}
	rate, err := measure(1, func() (int, error) {
		stream, err := stub.ServerStream(context.Background(), &grpchantesting.Message{Payload: make([]byte, 1_000_000), Count: 5})
		for err == nil {
			_, err = stream.Recv()
		}
		if err == io.EOF {
			err = nil
		}
		return 5, err
	})
	if err != nil {
		return err
	}
	results["stream 1000000"] = rate
	encoded, err := json.Marshal(results)
	fmt.Printf("rates %s\n", encoded)
	return err
}

// How often per second, after a quarter of the time to warm up.
func measure(callers int, call func() (int, error)) (float64, error) {
	var count atomic.Int64
	var failed atomic.Value
	begin := time.Now().Add(rateSeconds * time.Second / 4)
	end := begin.Add(rateSeconds * time.Second)
	var group sync.WaitGroup
	for range callers {
		group.Add(1)
		go func() {
			defer group.Done()
			for now := time.Now(); now.Before(end); now = time.Now() {
				done, err := call()
				if err != nil {
					failed.Store(err)
					return
				}
				if now.After(begin) {
					count.Add(int64(done))
				}
			}
		}()
	}
	group.Wait()
	if err, ok := failed.Load().(error); ok {
		return 0, err
	}
	return float64(count.Load()) / rateSeconds, nil
}

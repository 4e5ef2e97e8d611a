// world.go starts and stops the parts: a control plane, and two replicas of the
// manager with the rights that config/rbac gives it.
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const (
	// replicas is how many managers run. One of them is elected.
	replicas = 2
	// namespace is where the TrustedIssuers are.
	namespace = "lifecycle"
	// audience is what a token must be meant for.
	audience = "https://orders.example.com"
	// neverScheduled is the cacheTTL: so long that no fetch is a scheduled one.
	neverScheduled = 24 * time.Hour
)

// world is everything that runs.
type world struct {
	*harness.Cluster

	managers []*replica
}

// replica is a manager.
type replica struct {
	*harness.Manager

	address string // of forward-auth
}

// inWorld measures something in a world of its own.
func inWorld(ctx context.Context, managerBinary string, measure func(*world) error) error {
	harness.Say("Starting etcd, kube-apiserver and two managers ...")
	return harness.InCluster(ctx, func(c *harness.Cluster) error {
		w := &world{Cluster: c}
		for n := range replicas {
			if err := w.startManager(ctx, managerBinary, fmt.Sprintf("manager-%d", n+1)); err != nil {
				return err
			}
		}
		return measure(w)
	}, namespace)
}

// startManager starts one and waits until it is ready.
func (w *world) startManager(ctx context.Context, binary, name string) error {
	address, err := harness.FreeAddress()
	if err != nil {
		return err
	}
	m, err := w.StartManager(ctx, binary, harness.Both, name, "--leader-elect", "--verifier-http-bind-address", address)
	w.managers = append(w.managers, &replica{m, address})
	return err
}

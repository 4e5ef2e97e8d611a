// failover.go measures what becomes of the schedule when the leader goes.
package main

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jwks-trust/jwks-trust-manager/test/harness"
)

const (
	// shortest is the smallest cacheTTL, of which keys are refreshed at 0.7 to 0.9.
	shortest           = 2 * time.Minute
	dueFrom, dueBefore = 7 * shortest / 10, 9 * shortest / 10
	// killAt is how long before the first refresh the leader is killed.
	killAt = 4 * time.Second
	// leaseName is that of the leader election.
	leaseName = "jwks-trust-manager"
)

// succession measures one leader after the other.
type succession struct {
	*harness.Cluster

	o       *options
	fleet   *fleet
	due     []int // issuers whose refresh comes due, and
	notDue  []int // those whose refresh does not
	leaders int
}

func measureFailover(ctx context.Context, o *options, r *harness.Report) error {
	f, err := newFleet(4, func(n int) time.Duration {
		if n%2 == 0 {
			return shortest
		}
		return 24 * time.Hour
	})
	if err != nil {
		return err
	}
	defer f.close()
	harness.Say("Starting etcd, kube-apiserver and two controllers ...")
	return harness.InCluster(ctx, func(c *harness.Cluster) error {
		s := &succession{Cluster: c, o: o, fleet: f}
		for n := range o.failover {
			if f.cacheTTL(n) == shortest {
				s.due = append(s.due, n)
			} else {
				s.notDue = append(s.notDue, n)
			}
		}
		return s.measure(ctx, r)
	}, namespace)
}

func (s *succession) measure(ctx context.Context, r *harness.Report) error {
	first, err := s.next(ctx)
	if err != nil {
		return err
	}
	began := time.Now() // no issuer is asked before
	if err := createReady(ctx, s.Cluster, s.fleet.objects(s.o.failover), dueFrom-killAt); err != nil {
		return err
	}
	asked := time.Now() // nor after
	second, err := s.next(ctx)
	if err != nil {
		return err
	}
	if err := s.crash(ctx, r, first, began, asked); err != nil {
		return err
	}
	if _, err := s.next(ctx); err != nil {
		return err
	}
	return s.handOver(ctx, r, second)
}

// next starts another controller.
func (s *succession) next(ctx context.Context) (*process, error) {
	s.leaders++
	p, err := start(ctx, s.Cluster, s.o, harness.Controller, fmt.Sprintf("controller-%d", s.leaders), "--leader-elect")
	if err != nil || s.leaders > 1 {
		return p, err
	}
	_, err = s.elected(ctx, "")
	return p, err
}

// elected waits until somebody else than before leads.
func (s *succession) elected(ctx context.Context, before string) (holder string, err error) {
	err = harness.Within(ctx, time.Minute, 5*time.Millisecond, "a leader", func() (bool, error) {
		lease := &coordinationv1.Lease{}
		err := s.Client.Get(ctx, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: leaseName}, lease)
		if err != nil || lease.Spec.HolderIdentity == nil {
			return false, client.IgnoreNotFound(err)
		}
		holder = *lease.Spec.HolderIdentity
		return holder != "" && holder != before, nil
	})
	return holder, err
}

// crash kills the leader shortly before refreshes come due.
func (s *succession) crash(ctx context.Context, r *harness.Report, leader *process, began, asked time.Time) error {
	holder, err := s.elected(ctx, "")
	if err != nil {
		return err
	}
	at := began.Add(dueFrom - killAt)
	harness.Say("Killing the leader in %s, shortly before %d refreshes come due ...", harness.Round(time.Until(at)), len(s.due))
	if err := until(ctx, at); err != nil {
		return err
	}
	leader.Kill()
	killed := time.Now()
	if early := s.askedAgain(s.due, 1) + s.askedAgain(s.notDue, 1); early > 0 {
		return fmt.Errorf("%d issuers were asked again before the leader was killed", early)
	}
	if _, err := s.elected(ctx, holder); err != nil {
		return err
	}
	elected := time.Now()
	if err := until(ctx, asked.Add(dueBefore)); err != nil { // all are due now
		return err
	}
	err = harness.Within(ctx, time.Minute, 10*time.Millisecond, "what is due", func() (bool, error) {
		return s.askedAgain(s.due, 1) == len(s.due), nil
	})
	done := time.Now()
	r.Target("fail-over: refreshes that came due while nobody led, and were made", err == nil, fmt.Sprint(len(s.due)), "%d", s.askedAgain(s.due, 1))
	if err := until(ctx, done.Add(5*time.Second)); err != nil { // and no more of them
		return err
	}
	r.Target("fail-over: of these, made more than once", s.askedAgain(s.due, 2) == 0, "0", "%d", s.askedAgain(s.due, 2))
	r.Target("fail-over: requests to issuers that were not due", s.askedAgain(s.notDue, 1) == 0, "0", "%d of %d issuers", s.askedAgain(s.notDue, 1), len(s.notDue))
	r.Figure("fail-over: leader killed -> next one elected", "%s", harness.Round(elected.Sub(killed)))
	return nil
}

// handOver stops the leader in good order.
func (s *succession) handOver(ctx context.Context, r *harness.Report, leader *process) error {
	holder, err := s.elected(ctx, "")
	if err != nil {
		return err
	}
	before := s.fleet.allAsked()
	harness.Say("Stopping the leader in good order ...")
	started := time.Now()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		leader.Stop()
	}()
	if _, err := s.elected(ctx, holder); err != nil {
		return err
	}
	took := time.Since(started)
	<-stopped
	if err := until(ctx, time.Now().Add(5*time.Second)); err != nil {
		return err
	}
	r.Target("hand-over: leader told to stop -> next one elected", took < 5*time.Second, "< 5s", "%s", harness.Round(took))
	r.Target("hand-over: requests to issuers, of which none was due", s.fleet.allAsked() == before, "0", "%d", s.fleet.allAsked()-before)
	return nil
}

// askedAgain is how many of the issuers were asked more often than that.
func (s *succession) askedAgain(issuers []int, than int) (many int) {
	for _, n := range issuers {
		if s.fleet.asked(n) > than {
			many++
		}
	}
	return many
}

func until(ctx context.Context, at time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(at)):
		return nil
	}
}

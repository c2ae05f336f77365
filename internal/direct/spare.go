package direct

import "time"

// daemon gives a process for a session: one that was kept ready, or else a new one.
func (s *Server) daemon() (*daemon, error) {
	s.mu.Lock()
	for len(s.spares) > 0 {
		d := s.spares[0]
		s.spares = s.spares[1:]
		if !d.ended() {
			s.refillLocked()
			s.mu.Unlock()
			return d, nil
		}
		s.discard(d)
	}
	s.refillLocked()
	s.mu.Unlock()
	return s.start()
}

func (s *Server) start() (*daemon, error) {
	var env []string
	if s.cfg.Env != nil {
		env = s.cfg.Env()
	}
	return startDaemon(s.cfg.Command, env)
}

// refillLocked starts processes until there are enough to spare.
func (s *Server) refillLocked() {
	for s.fenced == "" && s.coordinator.IsValid() && len(s.spares)+s.starting < s.cfg.Spare {
		s.starting++
		s.work.Go(func() {
			d, err := s.start()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.starting--
			switch {
			case err != nil:
				s.log.Warn("keep a process ready", "error", err) // who calls tries again, and is told
			case s.fenced != "":
				s.work.Go(func() { s.end(d, s.limits.Fence) })
			default:
				s.spares = append(s.spares, d)
			}
		})
	}
}

// end ends a process that serves nobody.
func (s *Server) end(d *daemon, grace time.Duration) {
	if err := d.end(grace, nil, 0); err != nil {
		s.log.Error("end a process that serves the store", "error", err)
	}
	s.discard(d)
}

// discard lets go of a process that has ended.
func (s *Server) discard(d *daemon) {
	if err := d.failure(); err != nil {
		s.log.Debug("a process that served the store has ended", "error", err)
	}
	d.in.Close()
	d.out.Close()
}

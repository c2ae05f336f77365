package control

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stun"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// relay is the tailnet's only DERP region and its STUN server.
type relay struct {
	derpMap *tailcfg.DERPMap
	derp    *derpserver.Server
	http    *http.Server
	stun    *net.UDPConn
	wg      sync.WaitGroup
}

func startRelay(addr netip.Addr) (*relay, error) {
	cert, err := selfSigned(addr)
	if err != nil {
		return nil, fmt.Errorf("certificate of the relay: %w", err)
	}
	ln, err := tls.Listen("tcp", net.JoinHostPort(addr.String(), "0"), &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("STUN server: %w", err)
	}
	r := &relay{stun: pc, derp: derpserver.New(key.NewNode(), logger.Discard)}
	r.http = &http.Server{
		Handler: derpserver.Handler(r.derp),
		// A client that goes away is not worth a line.
		ErrorLog:          logger.StdLogger(logger.Discard),
		ReadHeaderTimeout: 10 * time.Second,
		// DERP takes the connection over, which HTTP/2 can't do.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	r.wg.Go(func() { r.http.Serve(ln) })
	r.wg.Go(r.serveSTUN)

	ip := addr.String()
	r.derpMap = &tailcfg.DERPMap{
		OmitDefaultRegions: true, // never the Internet's
		Regions: map[int]*tailcfg.DERPRegion{1: {
			RegionID: 1, RegionCode: "lab", RegionName: "Lab",
			Nodes: []*tailcfg.DERPNode{{
				Name: "lab1", RegionID: 1, HostName: ip, IPv4: ip, IPv6: "none",
				DERPPort:         ln.Addr().(*net.TCPAddr).Port,
				STUNPort:         pc.LocalAddr().(*net.UDPAddr).Port,
				STUNTestIP:       ip,
				InsecureForTests: true, // the certificate is our own
			}},
		}},
	}
	return r, nil
}

func (r *relay) close() {
	r.stun.Close()
	r.http.Close()
	r.derp.Close()
	r.wg.Wait()
}

// serveSTUN tells each asker the address it was seen at, until the socket is
// closed.
func (r *relay) serveSTUN() {
	buf := make([]byte, 1500)
	for {
		n, from, err := r.stun.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if !stun.Is(buf[:n]) {
			continue
		}
		if id, err := stun.ParseBindingRequest(buf[:n]); err == nil {
			seen := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			r.stun.WriteToUDPAddrPort(stun.Response(id, seen), from)
		}
	}
}

func selfSigned(addr netip.Addr) (tls.Certificate, error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(30 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:  []net.IP{addr.AsSlice()},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, priv.Public(), priv)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}, nil
}

"""Large bodies that outlive a connection: assets, stored responses. One interface, two backends."""

-- Tells the workers that the queue has lost requests: they say which ones run. Returns nothing.
call('SPUBLISH', q .. ':x', '?')
return false
